package rabbitmq

import (
	"context"
	"errors"
	"fmt"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/turumba/turumba/kit/bus"
)

// observerExchange is where a copy of every message goes when the topology has
// Optional queues: bound to the main exchange they would make every mandatory
// message routable.
func observerExchange(t bus.Topology) string {
	for _, q := range t.Queues {
		if q.Optional {
			return t.Exchange + ".observers"
		}
	}
	return ""
}

// declare makes sure that exchanges, queues and bindings exist. It changes
// nothing that is there; a queue that exists with other arguments is an error,
// told by the broker as PRECONDITION_FAILED.
func (s *session) declare(t bus.Topology, p bus.Policy) error {
	ch, err := s.conn.Channel()
	if err != nil {
		return fmt.Errorf("open channel: %w", err)
	}
	err = declareOn(ch, t, p)
	if err != nil {
		// A failed declaration has closed the channel already.
		return err
	}
	return closeChannel(ch)
}

// rebind restores bindings that somebody has removed. It does not bring back a
// deleted queue: that is left to its consumers, who do it when the broker has
// told them. Declaring it sooner would leave them attached to nothing.
func (s *session) rebind(ctx context.Context, t bus.Topology) error {
	return s.within(context.WithoutCancel(ctx), func() error {
		var errs []error
		for _, q := range t.Queues {
			ch, err := s.conn.Channel()
			if err != nil {
				return fmt.Errorf("open channel: %w", err)
			}
			errs = append(errs, bindQueue(ch, t, q), closeChannel(ch))
		}
		return errors.Join(errs...)
	})
}

func declareOn(ch *amqp.Channel, t bus.Topology, p bus.Policy) error {
	exchanges := []string{t.Exchange, t.DeadLetterExchange}
	if o := observerExchange(t); o != "" {
		exchanges = append(exchanges, o)
	}
	for _, name := range exchanges {
		if err := ch.ExchangeDeclare(name, amqp.ExchangeTopic, true, false, false, false, nil); err != nil {
			return fmt.Errorf("declare exchange %s: %w", name, err)
		}
	}
	if err := declareDeadLetters(ch, t); err != nil {
		return err
	}
	for _, q := range t.Queues {
		if err := declareQueue(ch, t, q, p); err != nil {
			return err
		}
	}
	return nil
}

// declareDeadLetters declares a queue that itself has no delivery limit and
// nowhere to pass messages on to.
func declareDeadLetters(ch *amqp.Channel, t bus.Topology) error {
	args := amqp.Table{amqp.QueueTypeArg: amqp.QueueTypeClassic}
	for _, q := range t.Queues {
		if q.Quorum {
			args[amqp.QueueTypeArg] = amqp.QueueTypeQuorum
		}
	}
	if _, err := ch.QueueDeclare(t.DeadLetterQueue, true, false, false, false, args); err != nil {
		return fmt.Errorf("declare queue %s: %w", t.DeadLetterQueue, err)
	}
	return bind(ch, t.DeadLetterQueue, "#", t.DeadLetterExchange)
}

func declareQueue(ch *amqp.Channel, t bus.Topology, q bus.Queue, p bus.Policy) error {
	if _, err := ch.QueueDeclare(q.Name, true, false, false, false, queueArgs(t, q, p)); err != nil {
		return fmt.Errorf("declare queue %s: %w", q.Name, err)
	}
	return bindQueue(ch, t, q)
}

func bindQueue(ch *amqp.Channel, t bus.Topology, q bus.Queue) error {
	exchange := t.Exchange
	if q.Optional {
		exchange = observerExchange(t)
	}
	for _, pattern := range q.Bindings {
		if err := bind(ch, q.Name, pattern, exchange); err != nil {
			return err
		}
	}
	return nil
}

func queueArgs(t bus.Topology, q bus.Queue, p bus.Policy) amqp.Table {
	args := amqp.Table{
		amqp.QueueTypeArg:        amqp.QueueTypeClassic,
		"x-dead-letter-exchange": t.DeadLetterExchange,
	}
	if q.Quorum {
		args[amqp.QueueTypeArg] = amqp.QueueTypeQuorum
		// The broker counts failed deliveries and lets this many pass.
		args["x-delivery-limit"] = int64(p.Attempts - 1)
	}
	if q.Optional {
		args[amqp.QueueMaxLenArg] = int64(bus.OptionalLimit)
		args[amqp.QueueOverflowArg] = amqp.QueueOverflowDropHead
		delete(args, "x-dead-letter-exchange") // what an observer drops is no failure
	}
	return args
}

func bind(ch *amqp.Channel, queue, pattern, exchange string) error {
	if err := ch.QueueBind(queue, pattern, exchange, false, nil); err != nil {
		return fmt.Errorf("bind queue %s to %s: %w", queue, pattern, err)
	}
	return nil
}

// closeChannel closes a channel that may be closed already.
func closeChannel(ch *amqp.Channel) error {
	if err := ch.Close(); err != nil && !errors.Is(err, amqp.ErrClosed) {
		return fmt.Errorf("close channel: %w", err)
	}
	return nil
}
