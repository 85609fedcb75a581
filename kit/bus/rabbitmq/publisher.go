package rabbitmq

import (
	"context"
	"fmt"
	"sync"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/turumba/turumba/kit/bus"
	"github.com/turumba/turumba/kit/failpoint"
)

// publisher is the one publishing channel of a session, in confirm mode. It
// waits for each confirm by itself: the library's stream of confirms is in order
// of publishing, and one queue that does not answer would hide the answers of
// all others.
type publisher struct {
	session   *session
	channel   *amqp.Channel
	exchange  string
	observers string        // exchange for copies, or ""
	window    chan struct{} // one token per message without a known result

	send sync.Mutex // keeps a message and its copy together

	mu       sync.Mutex // held from taking a return to noting it
	returns  <-chan amqp.Return
	returned map[returnKey]int // returned and not yet matched
}

// returnKey is by what a returned message is recognised.
type returnKey struct{ id, routingKey string }

func newPublisher(s *session, t bus.Topology, window int) (*publisher, error) {
	ch, err := s.conn.Channel()
	if err != nil {
		return nil, fmt.Errorf("open channel: %w", err)
	}
	if err := ch.Confirm(false); err != nil {
		return nil, fmt.Errorf("switch on confirms: %w", err)
	}
	return &publisher{
		session: s, channel: ch, exchange: t.Exchange, observers: observerExchange(t),
		window: make(chan struct{}, window),
		// As many returns as the window has tokens: the library's reader never
		// waits for us.
		returns: ch.NotifyReturn(make(chan amqp.Return, window)), returned: make(map[returnKey]int),
	}, nil
}

// publish sends the messages and waits for their confirms or the end of ctx.
// heard says whether the broker answered at all.
func (p *publisher) publish(ctx context.Context, messages []bus.Message) (results []error, heard bool) {
	results = make([]error, len(messages))
	sent := make([]*amqp.DeferredConfirmation, len(messages))
	// A broker that does not read would hold us in a write.
	stop := context.AfterFunc(ctx, p.session.drop)
	waiting := 0 // messages[:waiting] are settled
	for i := range messages {
		// With the window full of our own messages nobody else makes room.
		for len(p.window) == cap(p.window) && waiting < i && ctx.Err() == nil {
			heard = p.settle(ctx, messages, sent, results, waiting) || heard
			waiting++
		}
		sent[i], results[i] = p.sendOne(ctx, messages[i])
	}
	stop()
	_ = failpoint.Hit(ctx, failpoint.BusAfterPublish) // what is written has no error any more
	for ; waiting < len(messages); waiting++ {
		heard = p.settle(ctx, messages, sent, results, waiting) || heard
	}
	return results, heard
}

// sendOne publishes one message once the window has room.
func (p *publisher) sendOne(ctx context.Context, m bus.Message) (*amqp.DeferredConfirmation, error) {
	if err := m.Validate(); err != nil {
		return nil, err
	}
	select {
	case p.window <- struct{}{}:
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", bus.ErrUnavailable, ctx.Err())
	case <-p.session.lost:
		return nil, unavailable(p.session.failure())
	}
	p.send.Lock()
	defer p.send.Unlock()
	publishing := toPublishing(m)
	confirm, err := p.channel.PublishWithDeferredConfirm(p.exchange, m.RoutingKey, m.Mandatory, false, publishing)
	if err != nil {
		<-p.window
		return nil, fmt.Errorf("%w: %w", bus.ErrUnconfirmed, err)
	}
	if p.observers != "" {
		// Best effort: a copy has no result.
		_ = p.channel.Publish(p.observers, m.RoutingKey, false, false, publishing)
	}
	return confirm, nil
}

// settle waits for the result of message i and gives its token back. It reports
// whether the broker answered.
func (p *publisher) settle(ctx context.Context, messages []bus.Message, sent []*amqp.DeferredConfirmation, results []error, i int) bool {
	if sent[i] == nil {
		return false
	}
	select {
	case <-sent[i].Done():
	case <-ctx.Done():
		// What is answered by now still counts.
		select {
		case <-sent[i].Done():
		default:
			results[i] = fmt.Errorf("%w: %w", bus.ErrUnconfirmed, ctx.Err())
			go p.release(messages[i], sent[i])
			return false
		}
	}
	results[i] = p.verdict(messages[i], sent[i].Acked())
	<-p.window
	return !p.channel.IsClosed()
}

// release gives the token of an abandoned message back when its answer comes or
// the connection goes.
func (p *publisher) release(m bus.Message, confirm *amqp.DeferredConfirmation) {
	<-confirm.Done()
	_ = p.verdict(m, confirm.Acked()) // forgets its return; nobody waits for the result
	<-p.window
}

// verdict is the result of an answered message. The broker sends a return before
// the confirm of the same message, so it has arrived by now.
func (p *publisher) verdict(m bus.Message, acked bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.takeReturns()
	key := returnKey{m.ID, m.RoutingKey}
	if n := p.returned[key]; m.Mandatory && n > 0 {
		if n == 1 {
			delete(p.returned, key)
		} else {
			p.returned[key] = n - 1
		}
		return bus.ErrUnroutable
	}
	switch {
	case acked:
		return nil
	case p.channel.IsClosed():
		return fmt.Errorf("%w: the connection was lost", bus.ErrUnconfirmed)
	default:
		return bus.ErrRejected
	}
}

// takeReturns notes the returns that have come. The caller holds p.mu.
func (p *publisher) takeReturns() {
	for {
		select {
		case r, ok := <-p.returns:
			if !ok {
				p.returns = nil
				return
			}
			p.returned[returnKey{r.MessageId, r.RoutingKey}]++
		default:
			return
		}
	}
}
