package rabbitmq

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/turumba/turumba/kit/bus"
	"github.com/turumba/turumba/kit/clock"
)

// Times of a link that nobody needs to change.
const (
	firstReconnectDelay = 100 * time.Millisecond
	closeTimeout        = 2 * time.Second
)

// link keeps one connection to the broker, replacing it whenever it is lost.
type link struct {
	url      string
	purpose  string // "publish" or "consume"
	topology bus.Topology
	o        Options
	prepare  func(*session) error // after the topology is declared; may be nil

	mu      sync.Mutex
	current *session      // nil while there is none
	failure error         // why there is none
	changed chan struct{} // closed and replaced whenever current changes
}

func newLink(url, purpose string, topology bus.Topology, o Options) *link {
	return &link{url: url, purpose: purpose, topology: topology, o: o, changed: make(chan struct{})}
}

// run connects, waits for the loss and connects again, until ctx ends.
func (l *link) run(ctx context.Context) {
	pause := l.pauses()
	for ctx.Err() == nil {
		s, err := l.connect(ctx)
		if err == nil {
			pause.Reset()
			l.set(s, nil)
			err = l.attend(ctx, s)
		}
		l.set(nil, err)
		if ctx.Err() != nil {
			return
		}
		delay := pause.NextBackOff()
		l.o.Logger.LogAttrs(ctx, slog.LevelWarn, "broker not connected", slog.String("purpose", l.purpose),
			slog.Duration("retry_in", delay), slog.Any("err", err))
		if clock.Sleep(ctx, l.o.Clock, delay) != nil {
			return
		}
	}
}

func (l *link) pauses() *backoff.ExponentialBackOff {
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval = firstReconnectDelay
	pause.Multiplier = 2
	pause.MaxInterval = l.o.MaxReconnectDelay
	pause.Reset()
	return pause
}

// connect opens a session and declares the topology on it.
func (l *link) connect(ctx context.Context) (*session, error) {
	s, err := openSession(ctx, l.url, l.o.Name+" "+l.purpose, l.o.Heartbeat)
	if err != nil {
		return nil, fmt.Errorf("connect to the broker: %w", err)
	}
	if err := l.setUp(ctx, s); err != nil {
		s.close(ctx)
		return nil, err
	}
	l.o.Logger.LogAttrs(ctx, slog.LevelInfo, "broker connected", slog.String("purpose", l.purpose))
	return s, nil
}

func (l *link) setUp(ctx context.Context, s *session) error {
	return s.within(ctx, func() error {
		if err := s.declare(l.topology, l.o.Policy); err != nil || l.prepare == nil {
			return err
		}
		return l.prepare(s)
	})
}

// setUpAgain declares the topology on a session in use.
func (l *link) setUpAgain(ctx context.Context, s *session) error {
	return s.within(ctx, func() error { return s.declare(l.topology, l.o.Policy) })
}

// attend waits for the end of the session and returns why it ended.
func (l *link) attend(ctx context.Context, s *session) error {
	select {
	case <-s.lost:
		return s.failure()
	case <-ctx.Done():
		s.close(ctx)
		return ctx.Err()
	}
}

func (l *link) set(s *session, failure error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.current, l.failure = s, failure
	close(l.changed)
	l.changed = make(chan struct{})
}

// state returns the session, or nil and why there is none.
func (l *link) state() (*session, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.current, l.failure
}

// wait returns the session as soon as there is one.
func (l *link) wait(ctx context.Context) (*session, error) {
	for {
		l.mu.Lock()
		s, failure, changed := l.current, l.failure, l.changed
		l.mu.Unlock()
		if s != nil {
			return s, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, unavailable(failure)
		}
	}
}

// unavailable wraps the reason, if there is one yet.
func unavailable(reason error) error {
	if reason == nil {
		return fmt.Errorf("%w: not connected yet", bus.ErrUnavailable)
	}
	return fmt.Errorf("%w: %w", bus.ErrUnavailable, reason)
}
