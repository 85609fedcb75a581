package sim

import (
	"errors"
	"math/rand/v2"
	"sync/atomic"
	"time"
)

const maxLatencyMS = 10 * 60 * 1000

// Control is the behaviour of the whole server.
type Control struct {
	// RefuseLogin answers every login with 535, every HTTP request with 401.
	RefuseLogin bool `json:"refuse_login"`
	// LatencyMS delays the answer to every message, in milliseconds, at most ten
	// minutes.
	LatencyMS int `json:"latency_ms"`
	// FailRate is the share of messages, 0 to 1, that are answered 451, or 503,
	// instead of being taken.
	FailRate float64 `json:"fail_rate"`
	// Faults go wrong with some messages; the first that meets a message happens to it.
	Faults []Fault `json:"faults,omitempty"`
}

type control struct {
	value atomic.Pointer[Control]
	calls calls
}

func newControl() *control {
	c := &control{}
	c.value.Store(&Control{})
	return c
}

func (c *control) get() Control { return *c.value.Load() }

func (c *control) set(v Control) error {
	switch {
	case v.LatencyMS < 0 || v.LatencyMS > maxLatencyMS:
		return errors.New("latency_ms must be between 0 and 600000")
	case !(v.FailRate >= 0 && v.FailRate <= 1):
		return errors.New("fail_rate must be between 0 and 1")
	}
	for _, f := range v.Faults {
		if err := f.problem(); err != nil {
			return err
		}
	}
	c.value.Store(&v)
	return nil
}

// draw notes a call and says what goes wrong with it; the zero Fault for nothing.
func (c *control) draw(now time.Time, from, to string) (drawn Fault) {
	for _, f := range c.value.Load().Faults {
		if f.meets(now, from, to) {
			drawn = f
			break
		}
	}
	c.calls.add(Call{Time: now, From: from, To: to, Fault: drawn.Kind})
	return drawn
}

// unlucky draws whether a message fails.
func (c *control) unlucky() bool {
	rate := c.value.Load().FailRate
	return rate > 0 && rand.Float64() < rate
}
