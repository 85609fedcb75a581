package sim

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// PhoneScript is what one phone number asks for.
type PhoneScript struct {
	// Status is the HTTP status of the answer, Code and Message the provider's own.
	Status, Code int
	Message      string
	// RetryAfter is the header of that name; empty for none.
	RetryAfter string
	// Body, if not empty, is the body of the answer as it stands, with Fill spaces
	// behind it; Gzip packs it, asked or not.
	Body string
	Fill int
	Gzip bool
	// Accept takes and journals the message, whatever is answered; Reset resets the
	// connection instead of answering, with or without, Silent then never answers.
	Accept, Reset, Silent bool
	// Delay is a wait before the answer.
	Delay time.Duration
}

// Phone is one entry of Phones.
type Phone struct {
	// Number is the recipient.
	Number string
	// Meaning is one line for people.
	Meaning string
	// Script is what happens.
	Script PhoneScript
}

// slowPhone begins the numbers whose last three digits are a delay in milliseconds.
const slowPhone = "+15005557"

// phones is the table of scripts; it never changes. The first ones mean what they
// mean to Twilio's own test credentials.
var phones = [...]Phone{
	refusing("+15005550001", http.StatusBadRequest, 21211, "Invalid 'To' Phone Number: +15005550001"),
	refusing("+15005550002", http.StatusBadRequest, 21612, "Message cannot be sent with the current combination of 'To' and 'From'"),
	refusing("+15005550003", http.StatusBadRequest, 21408, "Permission to send an SMS has not been enabled for the region"),
	refusing("+15005550004", http.StatusBadRequest, 21610, "Attempt to send to unsubscribed recipient +15005550004"),
	refusing("+15005550009", http.StatusBadRequest, 21614, "'To' number +15005550009 is not a valid mobile number"),
	refusing("+15005550010", http.StatusTooManyRequests, 20429, "Too Many Requests", "2"),
	refusing("+15005550011", http.StatusTooManyRequests, 14107, "Message rate exceeded"),
	refusing("+15005550012", http.StatusBadRequest, 21611, "The 'From' number has exceeded the maximum number of queued messages"),
	refusing("+15005550020", http.StatusInternalServerError, 20500, "Internal Server Error"),
	refusing("+15005550021", http.StatusServiceUnavailable, 20503, "Service Unavailable", "3"),
	refusing("+15005550022", http.StatusServiceUnavailable, 20503, "Service Unavailable"),
	refusing("+15005550030", http.StatusBadRequest, 21606, "The 'From' phone number is not a valid message-capable number"),
	refusing("+15005550031", http.StatusUnauthorized, 20003, "Authenticate"),
	refusing("+15005550032", http.StatusPaymentRequired, 0, "Payment Required"),
	refusing("+15005550033", http.StatusBadRequest, 21617, "The concatenated message body exceeds the 1600 character limit"),
	refusing("+15005550034", http.StatusBadRequest, 99999, "A code that nobody knows"),
	{"+15005550040", "accepts and journals, then resets instead of answering", PhoneScript{Accept: true, Reset: true}},
	{"+15005550041", "accepts and journals, then never answers", PhoneScript{Accept: true, Silent: true}},
	{"+15005550042", "accepts and journals, then answers 201 with broken JSON", PhoneScript{Accept: true, Status: http.StatusCreated, Body: `{"sid": "SM0123`}},
	{"+15005550043", "accepts and journals, then answers 500", PhoneScript{Accept: true, Status: http.StatusInternalServerError, Code: 20500, Message: "Internal Server Error"}},
	{"+15005550044", "200 with an error body", PhoneScript{Status: http.StatusOK, Code: 21211, Message: "Invalid 'To' Phone Number"}},
	{"+15005550045", "502 with a page of HTML", PhoneScript{Status: http.StatusBadGateway, Body: "<html>bad gateway</html>"}},
}

// refusing is an entry that answers an error; hint is the Retry-After.
func refusing(number string, status, code int, message string, hint ...string) Phone {
	script := PhoneScript{Status: status, Code: code, Message: message, RetryAfter: strings.Join(hint, "")}
	return Phone{number, strconv.Itoa(status) + " with code " + strconv.Itoa(code), script}
}

// Phones returns the numbers that ask for trouble. A number that begins with
// +15005557 delays its answer by its last three digits, in milliseconds.
func Phones() []Phone { return slices.Clone(phones[:]) }

// phoneScript returns the script of a number; the zero one for ordinary numbers.
func phoneScript(number string) PhoneScript {
	for i := range phones {
		if phones[i].Number == number {
			return phones[i].Script
		}
	}
	if digits, ok := strings.CutPrefix(number, slowPhone); ok {
		if ms, err := strconv.ParseUint(digits, 10, 10); err == nil {
			return PhoneScript{Delay: time.Duration(ms) * time.Millisecond}
		}
	}
	return PhoneScript{}
}
