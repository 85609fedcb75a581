package twilio

import (
	"net/http"
	"time"

	"github.com/turumba/turumba/services/messaging/channel"
)

// classify says where the message is and why it was refused: by Twilio's code, and
// by the HTTP status where the code says nothing. hinted says that a time to come
// back was named.
func classify(status, code int, hinted bool) (channel.Outcome, channel.Class) {
	if class := classOf(code); class != 0 {
		return channel.Rejected, class
	}
	switch {
	case status == http.StatusTooManyRequests:
		return channel.Rejected, channel.ClassRateLimited
	case status == http.StatusServiceUnavailable && hinted, status == http.StatusTooEarly:
		return channel.Rejected, channel.ClassTransient
	case status == http.StatusPaymentRequired:
		return channel.Rejected, channel.ClassBilling
	case status == http.StatusUnauthorized, status == http.StatusForbidden, status >= 300 && status < 400:
		return channel.Rejected, channel.ClassConfig
	case status == http.StatusRequestTimeout, status < 400, status >= 500:
		return channel.Unknown, channel.ClassUnknown
	}
	return channel.Rejected, channel.ClassPermanentContent
}

// classOf is the class of a code of Twilio's dictionary; 0 where it says nothing of
// what became of the message.
func classOf(code int) channel.Class {
	switch code {
	case 20429, 14107, 21611, 63017, 63018, // too fast, queue of the sender full
		30022, 30023, 30027, 63038: // limits of a day
		return channel.ClassRateLimited
	case 20003, 20005, 20006, 20151, 20403, 20404, 30002, // login, account
		21212, 21603, 21606, 21210, 21701, 21702, 21703, 21704, 21705, 21712, // sender, service
		21408, 21215, // region not enabled
		30024, 30032, 30018, // sender not registered
		21608, 21219: // trial account
		return channel.ClassConfig
	case 21211, 21214, 21217, 21604, 21612, 21614, 21401, 63003, 63024, 63032, 63033, 63014:
		return channel.ClassPermanentRecipient
	case 21610:
		return channel.ClassOptedOut
	case 21602, 21617, 21618, 21620, 21623, 21654, 21655, 21656:
		return channel.ClassPermanentContent
	case 63016:
		return channel.ClassWindowClosed
	}
	return 0
}

// pauseOf is how long to wait after a code that comes without a hint.
func pauseOf(code int) time.Duration {
	switch code {
	case 21611:
		return time.Minute
	case 30022, 30023, 30027, 63038:
		return channel.MaxRetryAfter
	}
	return 0
}
