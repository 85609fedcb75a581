// Package streams is what long-lived calls need that others do not: a place among a
// bounded number of them (places.go), and one look at a row for all who watch it
// (watch.go).
package streams

import (
	"container/heap"
	"context"
	"slices"
	"sync"
	"time"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/clock"
)

// The most streams that are open at the same time, in one process of a service. More
// are refused at once with RATE_LIMITED (UNAVAILABLE at the last), and RetryInfo.
const (
	// PerCaller is for a user or an API key.
	PerCaller = 20
	// PerAccount is for an account.
	PerAccount = 200
	// PerProcess is for everybody. A stream costs some 50 KiB.
	PerProcess = 20_000
)

// For how long a stream that reads counts at least, from when it was opened: who opens one
// has made the work of its first page.
const (
	// ReadHold is for one that its client left before the end: a caller drops at most
	// PerCaller of them in this time, one a second on average, and an account PerAccount.
	ReadHold = 20 * time.Second
	// EndHold is the most for one that came to its end, which counts EndTimes as long as
	// it took. So who reads one after another finds a place, although each takes less
	// than the one before, and who opens many keeps four at work.
	EndHold  = 5 * time.Second
	EndTimes = 5
)

// End is how a stream ended.
type End uint8

const (
	// Refused is the end of a stream that failed before its first message.
	Refused End = iota
	// Ended is that of one that came to an end of its own, or of the server.
	Ended
	// Left is that of one whose client left.
	Left
)

// retryAfter is what a refused caller is told to wait for the end of a stream.
const retryAfter = 5 * time.Second

// Places counts the streams that are open. It is safe for concurrent use.
type Places struct {
	clock clock.Clock

	mu        sync.Mutex
	taken     int
	byCaller  map[string]int
	byAccount map[string]int
	held      held
}

// NewPlaces returns places that are all free.
func NewPlaces(c clock.Clock) *Places {
	return &Places{clock: c, byCaller: map[string]int{}, byAccount: map[string]int{}}
}

// Take takes a place for a stream of the caller, who may see these accounts. The stream
// counts in one of them, that with the most room, until Settle says in which; it is
// refused when none has room. accounts may be empty. A stream that reads counts for a while
// even if it ends sooner.
func (p *Places) Take(caller string, accounts []string, reads bool) (*Place, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.clock.Now()
	p.forget(now)
	account := p.roomiest(accounts)
	switch {
	case p.taken >= PerProcess:
		return nil, apierr.New(errorv1.Reason_REASON_UNAVAILABLE, "too many streams are open, try again later").WithRetryAfter(retryAfter)
	case p.byCaller[caller] >= PerCaller:
		wait := p.wait(func(held *Place) bool { return held.caller == caller })
		return nil, apierr.RateLimited(wait, "you have %d streams open, or opened lately, the most there may be", PerCaller)
	case account != "" && p.byAccount[account] >= PerAccount:
		return nil, p.fullAccount(account)
	}
	p.taken++
	p.byCaller[caller]++
	if account != "" {
		p.byAccount[account]++
	}
	return &Place{of: p, caller: caller, account: account, reads: reads, opened: now}, nil
}

// held are the places that count until their time although the streams are over; the first
// is that whose time comes next.
type held []*Place

// Len, Less, Swap, Push and Pop implement heap.Interface.
func (h *held) Len() int           { return len(*h) }
func (h *held) Less(i, j int) bool { return (*h)[i].until.Before((*h)[j].until) }
func (h *held) Swap(i, j int)      { (*h)[i], (*h)[j] = (*h)[j], (*h)[i] }
func (h *held) Push(x any)         { *h = append(*h, x.(*Place)) } //nolint:forcetypeassert // only places are pushed
func (h *held) Pop() any {
	last := (*h)[len(*h)-1]
	(*h)[len(*h)-1] = nil
	*h = (*h)[:len(*h)-1]
	return last
}

// forget stops to hold places whose time is over.
func (p *Places) forget(now time.Time) {
	for len(p.held) > 0 && !p.held[0].until.After(now) {
		p.drop(heap.Pop(&p.held).(*Place)) //nolint:forcetypeassert // only places are pushed
	}
}

// drop takes the place out of the counts.
func (p *Places) drop(place *Place) {
	drop(p.byCaller, place.caller)
	drop(p.byAccount, place.account)
}

// Open is how many places are taken.
func (p *Places) Open() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.taken
}

// roomiest is the account with the fewest streams; empty for none.
func (p *Places) roomiest(accounts []string) string {
	if len(accounts) == 0 {
		return ""
	}
	return slices.MinFunc(accounts, func(a, b string) int { return p.byAccount[a] - p.byAccount[b] })
}

func (p *Places) fullAccount(account string) error {
	wait := p.wait(func(held *Place) bool { return held.account == account })
	return apierr.RateLimited(wait, "the account has %d streams open, or opened lately, the most there may be", PerAccount)
}

// wait is how long it takes until the first of these places is free that are held; nobody
// knows when an open stream ends.
func (p *Places) wait(these func(*Place) bool) time.Duration {
	var first time.Time
	for _, held := range p.held {
		if these(held) && (first.IsZero() || held.until.Before(first)) {
			first = held.until
		}
	}
	if first.IsZero() {
		return retryAfter
	}
	return first.Sub(p.clock.Now())
}

// Place is one stream's. The zero Place counts nowhere.
type Place struct {
	of              *Places
	caller, account string
	reads           bool
	settled         bool      // account is that of the stream
	opened, until   time.Time // until is when the place does not count any more
	over            bool      // the stream is
}

// Settled is the account that the stream is about; empty while that is not known.
func (p *Place) Settled() string {
	if p.of == nil {
		return ""
	}
	p.of.mu.Lock()
	defer p.of.mu.Unlock()
	if !p.settled {
		return ""
	}
	return p.account
}

// Settle says of which account the stream is, now that this is known. It is refused when
// that account has no room.
func (p *Place) Settle(account string) error {
	if p.of == nil {
		return nil
	}
	p.of.mu.Lock()
	defer p.of.mu.Unlock()
	switch {
	case p.over:
		return nil
	case p.account == account:
		p.settled = true
		return nil
	case p.of.byAccount[account] >= PerAccount:
		return p.of.fullAccount(account)
	}
	drop(p.of.byAccount, p.account)
	p.of.byAccount[account]++
	p.account, p.settled = account, true
	return nil
}

// Release gives the place back, when its time has come; a second time does nothing.
func (p *Place) Release(end End) {
	if p.of == nil {
		return
	}
	p.of.mu.Lock()
	defer p.of.mu.Unlock()
	if p.over {
		return
	}
	p.over = true
	p.of.taken--
	now := p.of.clock.Now()
	if p.until = p.opened.Add(p.hold(end, now.Sub(p.opened))); p.until.After(now) {
		heap.Push(&p.of.held, p)
		return
	}
	p.of.drop(p)
}

// hold is for how long the place counts at least, of a stream that took so long.
func (p *Place) hold(end End, took time.Duration) time.Duration {
	switch {
	case !p.reads || end == Refused:
		return 0
	case end == Left:
		return ReadHold
	}
	return min(EndTimes*took, EndHold)
}

// drop counts one less; what is not counted any more takes no memory.
func drop(counts map[string]int, key string) {
	if counts[key]--; counts[key] <= 0 {
		delete(counts, key)
	}
}

type placeKey struct{}

// WithPlace returns a context of a stream that has the place.
func WithPlace(ctx context.Context, p *Place) context.Context {
	return context.WithValue(ctx, placeKey{}, p)
}

// Settle says of which account the stream of the context is; without a place, as for
// services of the mesh, it is nobody's.
func Settle(ctx context.Context, account string) error {
	if p, ok := ctx.Value(placeKey{}).(*Place); ok {
		return p.Settle(account)
	}
	return nil
}
