package app

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"

	eventv1 "github.com/turumba/turumba/gen/turumba/event/v1"
	"github.com/turumba/turumba/kit/bus"
	"github.com/turumba/turumba/kit/failpoint"
	"github.com/turumba/turumba/kit/outbox"
	"github.com/turumba/turumba/kit/telemetry"
)

// prefetch is how many hints a queue may have in hand; a hint is one wake-up.
const prefetch = 100

// knownLimit is how long the look for what an event names may take.
const knownLimit = 3 * time.Second

// check refuses events that cannot be what they say.
type check func(context.Context, *eventv1.Event) error

// consume takes the hints of a queue. The work itself is claimed from the
// database, so a hint that is lost or comes twice does no harm. What is no hint of
// ours goes to the dead letters, for people to look at.
func (a *App) consume(ctx context.Context, g *errgroup.Group, queue string, known check, wake func()) {
	g.Go(func() error {
		return a.deps.Bus.Consume(ctx, queue, prefetch, func(ctx context.Context, m bus.Message) error {
			turns := a.deps.Loops.Start("consumer." + queue) // a hint in hand for long stands still
			defer turns.End()
			if telemetry.Sampled(m.Headers["traceparent"]) {
				var span trace.Span
				ctx, span = a.tracer.Start(telemetry.WithTraceparent(ctx, m.Headers["traceparent"]), "take "+queue, trace.WithSpanKind(trace.SpanKindConsumer))
				defer span.End()
			}
			ev, err := hint(m)
			if err == nil && known != nil {
				err = known(ctx, ev)
			}
			if err != nil {
				return err
			}
			return hear(ctx, wake)
		})
	})
}

// hear is the whole effect of a hint.
func hear(ctx context.Context, wake func()) error {
	if err := failpoint.Hit(ctx, failpoint.ConsumeBeforeEffect); err != nil {
		return err
	}
	wake()
	return failpoint.Hit(ctx, failpoint.ConsumeBeforeAck)
}

// hint reads an event and holds it to what all of ours have.
func hint(m bus.Message) (*eventv1.Event, error) {
	ev, err := outbox.Decode(m)
	if err != nil {
		return nil, err
	}
	if ev.GetEventType() != m.RoutingKey {
		return nil, fmt.Errorf("message %q was sent as another type than its event has", m.ID)
	}
	_, account := uuid.Parse(ev.GetAccountId())
	if _, aggregate := uuid.Parse(ev.GetAggregateId()); aggregate != nil || account != nil {
		return nil, fmt.Errorf("message %q does not name what it is about", m.ID)
	}
	return ev, nil
}

// errNoSend: the event names a send that its account does not have.
var errNoSend = errors.New("the event names a group message that its account does not have")

// knownSend finds the event's send in the event's account. A send's row is there
// before its events and stays after them; a chunk's is not, so that nothing can be
// said about a chunk that is gone. While the database is away, the hint counts.
func (a *App) knownSend(ctx context.Context, ev *eventv1.Event) error {
	ctx, cancel := context.WithTimeout(ctx, knownLimit)
	defer cancel()
	known, err := a.store.SendExists(ctx, ev.GetAccountId(), ev.GetAggregateId())
	if err == nil && !known {
		return errNoSend
	}
	return nil
}
