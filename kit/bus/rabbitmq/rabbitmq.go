// Package rabbitmq is kit/bus on RabbitMQ 3.10 or newer: persistent messages,
// batched publisher confirms, manual acknowledgements, quorum queues with a
// delivery limit and a dead-letter exchange. It reconnects for ever.
//
// Publishing and consuming use separate connections, because a broker short of
// memory or disk stops reading from those that publish, and acknowledgements
// must still get through.
//
// One weakness of the broker to know (measured on 3.10.8, compare rabbitmq-server
// issue 15725): it writes the name of a new quorum queue to disk within a second
// or so after the declaration. Killed before that, a single node brings the
// queue back empty and without a leader, and it takes nothing until an operator
// triggers an election. Queues are declared once in the life of an installation,
// and messages are hints, so we live with it; classic queues do not have it.
package rabbitmq

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/turumba/turumba/kit/bus"
	"github.com/turumba/turumba/kit/clock"
)

// Options tunes a Bus. Zero fields take the default.
type Options struct {
	// Name shows in the broker's list of connections; default "turumba".
	Name string
	// Policy says what happens to a message whose handler fails.
	Policy bus.Policy
	// Window is the number of messages published and not yet confirmed; default
	// 500.
	Window int
	// ConfirmTimeout is how long Publish waits for the broker; default 10 s. When
	// it passes without a single confirm, and the broker is not short of
	// resources, the connection is taken for dead and replaced.
	ConfirmTimeout time.Duration
	// Heartbeat is the interval agreed with the broker; a connection silent for
	// three of them is given up. Default 5 s.
	Heartbeat time.Duration
	// MaxReconnectDelay caps the pause between attempts to connect, which grows
	// from 100 ms with jitter; default 10 s.
	MaxReconnectDelay time.Duration
	// QuietCheck is half the time without messages after which a consumer with
	// nothing in hand subscribes again; default 15 s.
	QuietCheck time.Duration
	// Clock times the pauses; default the machine's.
	Clock clock.Clock
	// Logger gets losses of the connection and failures of handlers, ids only;
	// default slog.Default().
	Logger *slog.Logger
}

func (o Options) withDefaults() Options {
	o.Policy = o.Policy.WithDefaults()
	o.Name = cmp.Or(o.Name, "turumba")
	o.Window = cmp.Or(max(o.Window, 0), 500)
	o.ConfirmTimeout = positive(o.ConfirmTimeout, 10*time.Second)
	o.Heartbeat = positive(o.Heartbeat, 5*time.Second)
	o.MaxReconnectDelay = positive(o.MaxReconnectDelay, 10*time.Second)
	o.QuietCheck = positive(o.QuietCheck, 15*time.Second)
	o.Logger = cmp.Or(o.Logger, slog.Default())
	if o.Clock == nil {
		o.Clock = clock.System()
	}
	return o
}

func positive(d, fallback time.Duration) time.Duration {
	return cmp.Or(max(d, 0), fallback)
}

// Bus is a bus.Bus on a RabbitMQ broker. It is safe for concurrent use.
type Bus struct {
	topology bus.Topology
	o        Options

	publishing *link
	consuming  *link
	// startConsuming connects for consuming, once: a process that only publishes
	// has one connection.
	startConsuming func()
	hangUp         context.CancelFunc // ends the links
	links          sync.WaitGroup

	mu        sync.Mutex // guards closed
	closed    bool
	done      chan struct{} // closed by Close
	consumers sync.WaitGroup
}

// Dial returns a bus that connects in the background: a broker that is away at
// the start is treated like one that goes away later. Ready waits for it. The
// error wraps bus.ErrInvalid and never shows the URL, which may hold a password.
// Of ctx only the values are used; Close ends the bus.
func Dial(ctx context.Context, url string, topology bus.Topology, o Options) (*Bus, error) {
	if err := topology.Validate(); err != nil {
		return nil, err
	}
	if _, err := amqp.ParseURI(url); err != nil {
		return nil, errURL()
	}
	o = o.withDefaults()
	b := &Bus{topology: topology, o: o, done: make(chan struct{})}
	life, hangUp := context.WithCancel(context.WithoutCancel(ctx))
	b.hangUp = hangUp
	b.publishing = newLink(url, "publish", topology, o)
	b.publishing.prepare = func(s *session) (err error) {
		s.publisher, err = newPublisher(s, topology, o.Window)
		return err
	}
	b.consuming = newLink(url, "consume", topology, o)
	b.links.Go(func() { b.publishing.run(life) })
	b.startConsuming = sync.OnceFunc(func() {
		b.links.Go(func() { b.consuming.run(life) })
	})
	return b, nil
}

func errURL() error {
	return fmt.Errorf("%w: the AMQP URL is not of the form amqp://user:password@host:port/vhost", bus.ErrInvalid)
}

// Ready waits until the bus is connected and the topology declared. When ctx
// ends first, the error wraps bus.ErrUnavailable and the last failure.
func (b *Bus) Ready(ctx context.Context) error {
	ctx, stop := b.untilClosed(ctx)
	defer stop()
	_, err := b.publishing.wait(ctx)
	if b.isClosed() {
		return bus.ErrClosed
	}
	return err
}

// Connected reports whether Publish has a connection just now.
func (b *Bus) Connected() bool {
	s, _ := b.publishing.state()
	return s != nil && !s.blocked.Load()
}

// Close implements bus.Bus. It waits for handlers in flight, at most
// Policy.DrainTimeout if they heed their context.
func (b *Bus) Close() error {
	b.mu.Lock()
	if !b.closed {
		b.closed = true
		close(b.done)
	}
	b.mu.Unlock()
	b.consumers.Wait()
	b.hangUp()
	b.links.Wait()
	return nil
}

func (b *Bus) isClosed() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.closed
}

// untilClosed returns a context that also ends when the bus is closed.
func (b *Bus) untilClosed(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, stop := context.WithCancel(ctx)
	go func() {
		select {
		case <-b.done:
			stop()
		case <-ctx.Done():
		}
	}()
	return ctx, stop
}
