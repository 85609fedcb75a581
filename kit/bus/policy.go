package bus

import (
	"context"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/turumba/turumba/kit/clock"
)

// Policy says what happens to a message whose handler fails. Zero fields take
// the default. On one broker every process must use the same Attempts, because
// the broker keeps it as a property of the queue.
type Policy struct {
	// Attempts is how often a message is handled before it goes to the
	// dead-letter queue; default 5. Losing the connection with a message in hand
	// counts as an attempt.
	Attempts int
	// RetryDelay is the pause before the second attempt; it doubles with each
	// further one. Default 100 ms. The message keeps its prefetch slot meanwhile.
	RetryDelay time.Duration
	// MaxRetryDelay caps the doubling; default 5 s.
	MaxRetryDelay time.Duration
	// HandlerTimeout is the deadline of a handler's context; default 25 s. With the
	// longest pause a message is held for 30 s, well under the broker's own
	// acknowledgement timeout of 30 min.
	HandlerTimeout time.Duration
	// DrainTimeout is how long handlers in flight may go on after Consume was
	// told to end; then their context is cancelled. Default 20 s.
	DrainTimeout time.Duration
}

// WithDefaults returns the policy with its zero fields filled.
func (p Policy) WithDefaults() Policy {
	if p.Attempts <= 0 {
		p.Attempts = 5
	}
	p.RetryDelay = positive(p.RetryDelay, 100*time.Millisecond)
	p.MaxRetryDelay = positive(p.MaxRetryDelay, 5*time.Second)
	p.HandlerTimeout = positive(p.HandlerTimeout, 25*time.Second)
	p.DrainTimeout = positive(p.DrainTimeout, 20*time.Second)
	return p
}

func positive(d, fallback time.Duration) time.Duration {
	if d > 0 {
		return d
	}
	return fallback
}

// Delay is the pause after the given failed attempt, counted from 1.
func (p Policy) Delay(attempt int) time.Duration {
	d := p.RetryDelay
	for i := 1; i < attempt && d < p.MaxRetryDelay; i++ {
		d *= 2
	}
	return min(d, p.MaxRetryDelay)
}

// Call runs h under HandlerTimeout and turns a panic into an error that carries
// the stack.
func (p Policy) Call(ctx context.Context, h Handler, m Message) (err error) {
	ctx, cancel := context.WithTimeout(ctx, p.HandlerTimeout)
	defer cancel()
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("handler panicked: %v\n%s", v, debug.Stack())
		}
	}()
	return h(ctx, m)
}

// Drain returns a context with ctx's values that is cancelled DrainTimeout after
// ctx ends, for handlers in flight. The caller calls the returned function when
// they are done.
func (p Policy) Drain(ctx context.Context, c clock.Clock) (context.Context, context.CancelFunc) {
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		// The sleep fails only when work was cancelled first; then there is
		// nothing left to do.
		if err := clock.Sleep(work, c, p.DrainTimeout); err == nil {
			cancel()
		}
	})
	return work, func() {
		stop()
		cancel()
	}
}
