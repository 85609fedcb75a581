package local

import (
	"context"
	"time"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/services/account/postgres"
)

// limit is how often something may happen in a window that begins with its first.
type limit struct {
	what   string
	most   int
	window time.Duration
}

// The limits (catalogue S-102, S-103). Those of failed logins slow guessing down
// without locking anybody out for longer than their window.
var (
	limitPair    = limit{"login of an address from an IP", 5, time.Minute}
	limitIP      = limit{"login from an IP", 20, time.Minute}
	limitAddress = limit{"login of an address", 100, time.Hour}
	limitTotp    = limit{"second factor of a user", 5, 5 * time.Minute}
	limitMail    = limit{"mail to an address", 10, time.Hour}
	limitSecret  = limit{"API key from an IP", 20, time.Minute}
)

// by is the limit for somebody; who is only kept as a hash.
func (l limit) by(who string) postgres.Limit {
	return postgres.Limit{Key: l.what + ":" + digest(who), Most: l.most, Window: l.window}
}

// loginLimits are those of one attempt to log in.
func loginLimits(email, ip string) []postgres.Limit {
	limits := []postgres.Limit{limitAddress.by(email)}
	if ip != "" {
		limits = append(limits, limitPair.by(email+"\x00"+ip), limitIP.by(ip))
	}
	return limits
}

// attempt counts before it is known how the attempt ends, so that many at once
// cannot slip through; refund takes it back for a good one.
func (p *Provider) attempt(ctx context.Context, limits ...postgres.Limit) error {
	wait, err := p.Store.TakeAttempt(ctx, limits)
	if err != nil {
		return err
	}
	if wait > 0 {
		return apierr.New(errorv1.Reason_REASON_RATE_LIMITED, "too many attempts").WithRetryAfter(wait)
	}
	return nil
}

func (p *Provider) refund(ctx context.Context, limits ...postgres.Limit) error {
	return p.Store.RefundAttempt(ctx, limits)
}
