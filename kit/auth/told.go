package auth

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// tellAgain is how long an outage is not told of again.
const tellAgain = time.Minute

// told says what is wrong with an issuer: outages at once and then once a minute, odd
// claims once. Its zero value says nothing.
type told struct {
	log    *slog.Logger
	issuer string

	outageAt time.Time // zero: there is none; under the key set's lock
	odd      sync.Once
}

func (t *told) outage(ctx context.Context, now time.Time, err error) {
	if t.log == nil || (!t.outageAt.IsZero() && now.Sub(t.outageAt) < tellAgain) {
		return
	}
	t.outageAt = now
	t.log.WarnContext(ctx, "the token keys of an issuer cannot be read; known ones are good for 24 hours", "issuer", t.issuer, "err", err)
}

func (t *told) over(ctx context.Context) {
	if t.log == nil || t.outageAt.IsZero() {
		return
	}
	t.outageAt = time.Time{}
	t.log.InfoContext(ctx, "the token keys of an issuer can be read again", "issuer", t.issuer)
}

func (t *told) oddGroups(ctx context.Context, claim string) {
	if t.log == nil {
		return
	}
	t.odd.Do(func() {
		t.log.WarnContext(ctx, "a claim with groups is neither a text nor a list of texts; what is none counts as no group", "issuer", t.issuer, "claim", claim)
	})
}
