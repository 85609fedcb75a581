package auth

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/clock"
)

// ContextSource turns verified claims into a caller with its memberships.
type ContextSource interface {
	Context(ctx context.Context, c Claims) (Caller, error)
}

// Limits of the cached context (decision B5).
const (
	contextFresh = 4500 * time.Millisecond // so that 5 s hold with the look-up itself
	contextStale = 35 * time.Second        // fresh, and 30 s more while the source is away
	contextLimit = 10 * time.Second        // of one look-up
	contextSize  = 10_000
)

// CachedContext keeps what a ContextSource answered for less than 5 s, asks once for all
// who wait, and when the source is UNAVAILABLE serves what it knows for 30 s
// more. Then it fails closed.
type CachedContext struct {
	source ContextSource
	clock  clock.Clock
	flight singleflight.Group

	mu      sync.RWMutex
	entries map[person]contextEntry
}

// person is a subject of an issuer.
type person struct{ issuer, subject string }

type contextEntry struct {
	caller Caller
	at     time.Time
}

// NewCachedContext caches source.
func NewCachedContext(source ContextSource, c clock.Clock) *CachedContext {
	return &CachedContext{source: source, clock: c, entries: map[person]contextEntry{}}
}

// Context implements ContextSource.
func (c *CachedContext) Context(ctx context.Context, claims Claims) (Caller, error) {
	key := person{claims.Issuer, claims.Subject}
	c.mu.RLock()
	e, known := c.entries[key]
	c.mu.RUnlock()
	if known && c.clock.Now().Sub(e.at) < contextFresh {
		return e.caller.of(claims), nil
	}
	v, err, _ := c.flight.Do(key.issuer+"\x00"+key.subject, func() (any, error) {
		// Who waits first must not end it for the others.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), contextLimit)
		defer cancel()
		caller, err := c.source.Context(ctx, claims)
		if err == nil {
			c.keep(key, caller)
		}
		return caller, err
	})
	if err == nil {
		caller, _ := v.(Caller)
		return caller.of(claims), nil
	}
	away := apierr.HasReason(err, errorv1.Reason_REASON_UNAVAILABLE) || apierr.HasReason(err, errorv1.Reason_REASON_DEADLINE_EXCEEDED)
	if known && away && c.clock.Now().Sub(e.at) < contextStale {
		return e.caller.of(claims), nil
	}
	return Caller{}, err
}

// of completes a cached caller with what belongs to this token alone. Groups of a token
// that only counts because its session was kept are gone: the second factor that they
// stood on may be off.
func (c Caller) of(claims Claims) Caller {
	c.Subject, c.Issuer, c.TokenID = claims.Subject, claims.Issuer, claims.TokenID
	c.Groups, c.TokenExpiry, c.SessionID = claims.Groups, claims.Expiry, claims.SessionID
	if c.older(claims) {
		c.Groups = nil
	}
	return c
}

func (c *CachedContext) keep(key person, caller Caller) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.entries) >= contextSize {
		clear(c.entries)
	}
	c.entries[key] = contextEntry{caller: caller, at: c.clock.Now()}
}

// Invalidate forgets everything: somebody's memberships changed.
func (c *CachedContext) Invalidate() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.entries)
}
