package sim

import (
	"slices"
	"sync"
	"time"
)

// maxCalls is how many calls are kept in memory.
const maxCalls = 100_000

// Call is one message that was handed in, whatever became of it: the journal has only
// those that were taken.
type Call struct {
	// Time is when it came.
	Time time.Time `json:"t"`
	// From is the sender, To the first recipient.
	From string `json:"from"`
	To   string `json:"to"`
	// Fault is the kind of Fault that happened to it; empty for none.
	Fault string `json:"fault,omitempty"`
}

// calls are the latest ones.
type calls struct {
	mu   sync.Mutex
	list []Call
}

func (c *calls) add(call Call) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.list) >= maxCalls {
		c.list = slices.Delete(c.list, 0, maxCalls/2)
	}
	c.list = append(c.list, call)
}

// of returns those of a sender, the oldest first; of everybody if it is empty.
func (c *calls) of(from string) []Call {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := []Call{}
	for _, call := range c.list {
		if from == "" || call.From == from {
			list = append(list, call)
		}
	}
	return list
}
