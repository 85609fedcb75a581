package inproc

import "github.com/turumba/turumba/kit/bus"

// queue is a bounded first-in-first-out list. The bus's lock guards everything
// but wake.
type queue struct {
	bus.Queue
	maxMessages int
	maxBytes    int
	dropOldest  bool // instead of refusing

	ready []envelope // ready[head:] are waiting
	head  int
	bytes int
	// wake holds a token while messages may be waiting. Whoever takes a message
	// and leaves others behind puts the token back.
	wake chan struct{}
}

func newQueue(q bus.Queue, maxMessages, maxBytes int) *queue {
	return &queue{Queue: q, maxMessages: maxMessages, maxBytes: maxBytes, wake: make(chan struct{}, 1)}
}

func (q *queue) len() int { return len(q.ready) - q.head }

func (q *queue) full(m bus.Message) bool {
	return q.len() >= q.maxMessages || (q.len() > 0 && q.bytes+size(m) > q.maxBytes)
}

func (q *queue) hasRoom(m bus.Message) bool { return q.dropOldest || !q.full(m) }

// push appends, after dropping the oldest where the queue is one that does.
// A message that comes back from a handler is always taken: it was counted
// before.
func (q *queue) push(e envelope) {
	for q.dropOldest && q.len() > 0 && q.full(e.message) {
		q.take()
	}
	q.ready = append(q.ready, e)
	q.bytes += size(e.message)
	q.signal()
}

// pop takes the oldest message, if there is one.
func (q *queue) pop() (envelope, bool) {
	if q.len() == 0 {
		return envelope{}, false
	}
	e := q.take()
	if q.len() > 0 {
		q.signal()
	}
	return e, true
}

func (q *queue) take() envelope {
	e := q.ready[q.head]
	q.ready[q.head] = envelope{} // let go of the body
	q.head++
	q.bytes -= size(e.message)
	if q.head >= 64 && q.head*2 >= len(q.ready) {
		q.ready = append([]envelope(nil), q.ready[q.head:]...)
		q.head = 0
	}
	return e
}

func (q *queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

func size(m bus.Message) int {
	n := len(m.ID) + len(m.RoutingKey) + len(m.Body)
	for key, value := range m.Headers {
		n += len(key) + len(value)
	}
	return n
}
