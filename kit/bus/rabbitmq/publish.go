package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/turumba/turumba/kit/bus"
)

// Publish implements bus.Publisher. The messages of one call share the window
// of the one publishing channel with those of other calls.
func (b *Bus) Publish(ctx context.Context, messages []bus.Message) []error {
	if b.isClosed() {
		return all(messages, bus.ErrClosed)
	}
	if err := ctx.Err(); err != nil {
		return all(messages, fmt.Errorf("%w: %w", bus.ErrUnavailable, err))
	}
	s, failure := b.publishing.state()
	if s == nil {
		return all(messages, unavailable(failure))
	}
	if s.blocked.Load() {
		return all(messages, errBlocked())
	}
	timed, cancel := context.WithTimeout(ctx, b.o.ConfirmTimeout)
	defer cancel()
	results, heard := s.publisher.publish(timed, messages)
	if errors.Is(timed.Err(), context.DeadlineExceeded) && !heard && !s.blocked.Load() {
		b.o.Logger.LogAttrs(ctx, slog.LevelWarn, "broker gave no confirms in time, dropping the connection")
		s.drop()
		return results
	}
	b.mend(ctx, s, messages, results)
	return results
}

// mend restores bindings that somebody has removed, for the next attempt.
func (b *Bus) mend(ctx context.Context, s *session, messages []bus.Message, results []error) {
	for i, err := range results {
		if !errors.Is(err, bus.ErrUnroutable) || !b.topology.Routable(messages[i].RoutingKey) {
			continue
		}
		if err := s.rebind(ctx, b.topology); err != nil {
			b.o.Logger.LogAttrs(ctx, slog.LevelWarn, "could not restore the bindings", slog.Any("err", err))
		}
		return
	}
}

func errBlocked() error {
	return fmt.Errorf("%w: the broker is short of memory or disk and accepts nothing", bus.ErrUnavailable)
}

func all(messages []bus.Message, err error) []error {
	results := make([]error, len(messages))
	for i := range results {
		results[i] = err
	}
	return results
}
