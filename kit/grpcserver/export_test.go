package grpcserver

import (
	"time"

	"github.com/turumba/turumba/kit/auth"
)

// NextLook is when the streams of a user look next.
func NextLook(now time.Time, userID string) time.Time {
	c := &call{}
	c.Caller = auth.Caller{UserID: userID}
	return nextLook(now, c)
}
