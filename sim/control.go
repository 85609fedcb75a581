package sim

import (
	"errors"
	"math/rand/v2"
	"sync/atomic"
)

const maxLatencyMS = 10 * 60 * 1000

// Control is the behaviour of the whole server.
type Control struct {
	// RefuseLogin answers every login with 535, every HTTP request with 401.
	RefuseLogin bool `json:"refuse_login"`
	// LatencyMS delays the answer to every message, in milliseconds, at most ten
	// minutes.
	LatencyMS int `json:"latency_ms"`
	// FailRate is the share of messages, 0 to 1, that are answered 451 4.3.0, or 503,
	// instead of being taken.
	FailRate float64 `json:"fail_rate"`
}

type control struct {
	value atomic.Pointer[Control]
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
	c.value.Store(&v)
	return nil
}

// unlucky draws whether a message fails.
func (c *control) unlucky() bool {
	rate := c.value.Load().FailRate
	return rate > 0 && rand.Float64() < rate
}
