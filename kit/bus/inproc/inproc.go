// Package inproc is a bus inside one process, with the meaning of a RabbitMQ
// topic exchange with work queues. Nothing is written to disk: what is queued
// when the process dies is gone. That is enough because messages are hints and
// every worker also looks into the database.
package inproc

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"sync"

	"github.com/turumba/turumba/kit/bus"
	"github.com/turumba/turumba/kit/clock"
)

// Defaults of Options.
const (
	defaultMessages = 100_000
	defaultBytes    = 64 << 20
)

// Options tunes a Bus. Zero fields take the default.
type Options struct {
	// Policy says what happens to a message whose handler fails.
	Policy bus.Policy
	// MaxMessages bounds each queue; beyond it Publish answers bus.ErrFull.
	// Default 100 000.
	MaxMessages int
	// MaxBytes bounds the bodies and headers in each queue; default 64 MiB.
	MaxBytes int
	// Clock times the redeliveries; default the machine's.
	Clock clock.Clock
	// Logger gets failures of handlers, ids only; default slog.Default().
	Logger *slog.Logger
}

// Bus is an in-process bus.Bus.
type Bus struct {
	policy bus.Policy
	clock  clock.Clock
	log    *slog.Logger

	mu        sync.Mutex // guards the queues and closed
	queues    map[string]*queue
	order     []*queue // the work queues, as given
	dead      *queue
	closed    bool
	done      chan struct{} // closed by Close
	consumers sync.WaitGroup
}

// New returns a bus with the queues of the topology, all empty. The error wraps
// bus.ErrInvalid.
func New(topology bus.Topology, o Options) (*Bus, error) {
	if err := topology.Validate(); err != nil {
		return nil, err
	}
	o = o.withDefaults()
	b := &Bus{
		policy: o.Policy, clock: o.Clock, log: o.Logger,
		queues: make(map[string]*queue), done: make(chan struct{}),
	}
	for _, q := range topology.Queues {
		added := newQueue(q, o.MaxMessages, o.MaxBytes)
		if q.Optional {
			added.maxMessages, added.dropOldest = min(o.MaxMessages, bus.OptionalLimit), true
		}
		b.queues[q.Name] = added
		b.order = append(b.order, added)
	}
	b.dead = newQueue(bus.Queue{Name: topology.DeadLetterQueue}, o.MaxMessages, o.MaxBytes)
	b.dead.dropOldest = true
	b.queues[topology.DeadLetterQueue] = b.dead
	return b, nil
}

func (o Options) withDefaults() Options {
	o.Policy = o.Policy.WithDefaults()
	if o.MaxMessages <= 0 {
		o.MaxMessages = defaultMessages
	}
	if o.MaxBytes <= 0 {
		o.MaxBytes = defaultBytes
	}
	if o.Clock == nil {
		o.Clock = clock.System()
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	return o
}

// Publish implements bus.Publisher. It never blocks.
func (b *Bus) Publish(ctx context.Context, messages []bus.Message) []error {
	results := make([]error, len(messages))
	for i, m := range messages {
		results[i] = b.publish(ctx, m)
	}
	return results
}

func (b *Bus) publish(ctx context.Context, m bus.Message) error {
	if err := m.Validate(); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%w: %w", bus.ErrUnavailable, err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return bus.ErrClosed
	}
	return b.route(m)
}

// route puts m into every matching queue or, when one of them is full, into
// none. The caller holds b.mu.
func (b *Bus) route(m bus.Message) error {
	var targets []*queue
	routed := false
	for _, q := range b.order {
		if !q.Matches(m.RoutingKey) {
			continue
		}
		if !q.hasRoom(m) {
			return fmt.Errorf("%w: %s", bus.ErrFull, q.Name)
		}
		targets = append(targets, q)
		routed = routed || !q.Optional
	}
	if len(targets) > 0 {
		e := newEnvelope(m)
		for _, q := range targets {
			q.push(e)
		}
	}
	if m.Mandatory && !routed {
		return bus.ErrUnroutable
	}
	return nil
}

// Close implements bus.Bus.
func (b *Bus) Close() error {
	b.mu.Lock()
	if !b.closed {
		b.closed = true
		close(b.done)
	}
	b.mu.Unlock()
	b.consumers.Wait()
	return nil
}

// envelope is a message in a queue and how often it was handled there.
type envelope struct {
	message  bus.Message
	failures int
}

// newEnvelope copies what the publisher may reuse.
func newEnvelope(m bus.Message) envelope {
	m.Body = append([]byte(nil), m.Body...)
	m.Headers = maps.Clone(m.Headers)
	m.Redelivered = false
	return envelope{message: m}
}
