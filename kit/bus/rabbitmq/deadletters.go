package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/turumba/turumba/kit/bus"
	"github.com/turumba/turumba/kit/clock"
)

// DeadLetter is a message that failed too often.
type DeadLetter struct {
	bus.Message
	// Queue is where it failed, Reason why it was given up: "delivery_limit" or
	// "rejected".
	Queue, Reason string
	// Died is when, by the broker's clock, in seconds; zero if it does not say.
	Died time.Time
}

// DeadLetters is the dead-letter queue as an operator goes through it, beside
// whatever runs. It declares nothing.
type DeadLetters struct {
	session  *session
	topology bus.Topology
	o        Options
}

// OpenDeadLetters connects to the broker. The error wraps bus.ErrInvalid or
// bus.ErrUnavailable and never shows the URL.
func OpenDeadLetters(ctx context.Context, url string, topology bus.Topology, o Options) (*DeadLetters, error) {
	if err := topology.Validate(); err != nil {
		return nil, err
	}
	if _, err := amqp.ParseURI(url); err != nil {
		return nil, errURL()
	}
	o = o.withDefaults()
	s, err := openSession(ctx, url, o.Name+" dead letters", o.Heartbeat)
	if err != nil {
		return nil, unavailable(err)
	}
	d := &DeadLetters{session: s, topology: topology, o: o}
	err = s.within(ctx, func() (err error) {
		s.publisher, err = newPublisher(s, topology, o.Window)
		return err
	})
	if err != nil {
		d.Close(ctx)
		return nil, unavailable(err)
	}
	return d, nil
}

// Close takes leave of the broker.
func (d *DeadLetters) Close(ctx context.Context) { d.session.close(ctx) }

// Review shows the messages that are in the queue when it begins, the oldest first,
// to decide, which says whether a message is given back to its exchange. It is
// taken from the dead letters only when the broker has confirmed it and a queue
// wants it; a crash in between leaves it in both, under the same id, so that a
// consumer with an inbox has its effect once. The others stay. What failed to be
// given back is told by failed, and stays too.
//
// The broker keeps no places for who only looks: messages are taken and put back at
// the end, so two reviews at the same time each see a part.
func (d *DeadLetters) Review(ctx context.Context, decide func(DeadLetter) (redrive bool), failed func(DeadLetter, error)) error {
	defer context.AfterFunc(ctx, d.session.drop)()
	ch, waiting, err := d.look(ctx)
	if err != nil {
		return d.broken(ctx, fmt.Errorf("look at queue %s: %w", d.topology.DeadLetterQueue, err))
	}
	kept := 0
	for range waiting {
		delivery, ok, err := d.get(ctx, ch)
		if err != nil {
			return d.broken(ctx, fmt.Errorf("read dead letters: %w", err))
		}
		if !ok {
			break
		}
		letter := deadLetter(delivery)
		if !decide(letter) {
			kept++
			continue
		}
		if err := d.redrive(ctx, letter); err != nil {
			failed(letter, err)
			kept++
			continue
		}
		if err := delivery.Ack(false); err != nil {
			return d.broken(ctx, fmt.Errorf("take a dead letter: %w", err))
		}
	}
	// With the channel everything that was not taken goes back.
	if err := d.session.within(ctx, func() error { return closeChannel(ch) }); err != nil {
		return d.broken(ctx, err)
	}
	return d.returned(ctx, kept)
}

// look opens a channel and counts what waits in the queue.
func (d *DeadLetters) look(ctx context.Context) (ch *amqp.Channel, waiting int, err error) {
	err = d.session.within(ctx, func() (err error) {
		if ch, err = d.session.conn.Channel(); err != nil {
			return err
		}
		waiting, err = d.count(ch)
		return err
	})
	return ch, waiting, err
}

func (d *DeadLetters) count(ch *amqp.Channel) (int, error) {
	q, err := ch.QueueDeclarePassive(d.topology.DeadLetterQueue, true, false, false, false, nil)
	return q.Messages, err
}

// get takes the next message; ok is false where there is none.
func (d *DeadLetters) get(ctx context.Context, ch *amqp.Channel) (delivery amqp.Delivery, ok bool, err error) {
	err = d.session.within(ctx, func() (err error) {
		delivery, ok, err = ch.Get(d.topology.DeadLetterQueue, false)
		return err
	})
	return delivery, ok, err
}

const (
	// returnLimit is how long messages may take to be in the queue again, and
	// returnEvery how often that is looked at. A quorum queue does it after it has
	// let go of the channel.
	returnLimit = 2 * time.Second
	returnEvery = 10 * time.Millisecond
)

// returned waits until what was only looked at is in the queue again, so that the
// next review finds it. Others may take some meanwhile: it does not wait for long.
func (d *DeadLetters) returned(ctx context.Context, kept int) error {
	ch, waiting, err := d.look(ctx)
	for end := d.o.Clock.Now().Add(returnLimit); err == nil && waiting < kept && d.o.Clock.Now().Before(end); {
		if err := clock.Sleep(ctx, d.o.Clock, returnEvery); err != nil {
			return err
		}
		err = d.session.within(ctx, func() (err error) {
			waiting, err = d.count(ch)
			return err
		})
	}
	if err != nil {
		return d.broken(ctx, err)
	}
	return d.session.within(ctx, func() error { return closeChannel(ch) })
}

// broken is why a review ended early.
func (d *DeadLetters) broken(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var e *amqp.Error
	if errors.As(err, &e) && e.Code == amqp.NotFound {
		return fmt.Errorf("%w: %q; a worker declares it", bus.ErrNoQueue, d.topology.DeadLetterQueue)
	}
	return unavailable(err)
}

// redrive publishes the message as it was before it died.
func (d *DeadLetters) redrive(ctx context.Context, letter DeadLetter) error {
	ctx, cancel := context.WithTimeout(ctx, d.o.ConfirmTimeout)
	defer cancel()
	m := letter.Message
	m.Mandatory, m.Redelivered, m.Headers = true, false, maps.Clone(m.Headers)
	maps.DeleteFunc(m.Headers, func(key, _ string) bool { return brokers(key) })
	results, _ := d.session.publisher.publish(ctx, []bus.Message{m})
	return results[0]
}

// brokers reports whether a header is the broker's own account of a message's fate.
func brokers(key string) bool {
	return strings.HasPrefix(key, "x-first-death-") || strings.HasPrefix(key, "x-last-death-") || key == "x-delivery-count" || key == "x-death"
}

// deadLetter reads what the broker noted; headers that other programs wrote may be
// anything.
func deadLetter(d amqp.Delivery) DeadLetter {
	m := fromDelivery(d)
	letter := DeadLetter{Message: m, Queue: m.Headers[bus.HeaderDeadQueue], Reason: m.Headers[bus.HeaderDeadReason]}
	deaths, _ := d.Headers["x-death"].([]any)
	if len(deaths) == 0 {
		return letter
	}
	if last, ok := deaths[0].(amqp.Table); ok {
		letter.Died, _ = last["time"].(time.Time)
	}
	return letter
}
