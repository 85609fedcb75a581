package identity

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"time"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/auth"
	"github.com/turumba/turumba/services/account/postgres"
)

// Limit is how often something may happen in a window that begins with its first.
type Limit struct {
	what   string
	most   int
	window time.Duration
}

// The limits (catalogue S-102, S-103). Those of failed logins slow guessing down
// without locking anybody out for longer than their window.
var (
	LimitPair    = Limit{"login of an address from an IP", 5, time.Minute}
	LimitIP      = Limit{"login from an IP", 20, time.Minute}
	LimitAddress = Limit{"login of an address", 100, time.Hour}
	LimitTotp    = Limit{"second factor of a user", 5, 5 * time.Minute}
	LimitMail    = Limit{"mail to an address", 10, time.Hour}
	LimitSecret  = Limit{"API key from an IP", 20, time.Minute}
)

// By is the limit for somebody; who is only kept as a hash.
func (l Limit) By(who string) postgres.Limit {
	return postgres.Limit{Key: l.what + ":" + Digest(who), Most: l.most, Window: l.window}
}

// LoginLimits are those of one attempt to log in.
func LoginLimits(email, ip string) []postgres.Limit {
	limits := []postgres.Limit{LimitAddress.By(email)}
	if ip != "" {
		limits = append(limits, LimitPair.By(email+"\x00"+ip), LimitIP.By(ip))
	}
	return limits
}

// Limits counts attempts in the database, so that a restart forgets none.
type Limits struct{ Store *postgres.Store }

// Attempt counts before it is known how the attempt ends, so that many at once
// cannot slip through; Refund takes it back for a good one.
func (l Limits) Attempt(ctx context.Context, limits ...postgres.Limit) error {
	wait, err := l.Store.TakeAttempt(ctx, limits)
	if err != nil {
		return err
	}
	if wait > 0 {
		return apierr.New(errorv1.Reason_REASON_RATE_LIMITED, "too many attempts").WithRetryAfter(wait)
	}
	return nil
}

// Refund takes attempts back.
func (l Limits) Refund(ctx context.Context, limits ...postgres.Limit) error {
	return l.Store.RefundAttempt(ctx, limits)
}

// ClientIP is the address of the client; empty when nobody knows.
func ClientIP(ctx context.Context) string { return auth.ClientFrom(ctx).IP }

// Digest is the SHA-256 of a text, in hex.
func Digest(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}
