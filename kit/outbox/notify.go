package outbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/jobs"
)

const (
	// notifySQL names the channel as text because it cannot be a parameter of
	// LISTEN; both are fixed here.
	notifySQL = "SELECT pg_notify('outbox_channel', '')"
	listenSQL = "LISTEN outbox_channel"

	// notifyEvery is the least time between two notifications of a process: one
	// in every transaction would serialise the commits of the whole server.
	notifyEvery   = 10 * time.Millisecond
	notifyTimeout = time.Second

	// forEver is how long nothing may be asked for.
	forEver = 100 * 365 * 24 * time.Hour

	// listenCheck is how long a listener waits before it proves that its connection still
	// answers, within connectionLimit.
	listenCheck     = 15 * time.Second
	connectionLimit = 5 * time.Second
)

// Notifier wakes the relays of other processes after commits, at most once per
// 10 ms however often it is asked.
type Notifier struct {
	// Loops get the finished turns; nil tells nobody.
	Loops *jobs.Loops

	pool  *pgxpool.Pool
	clock clock.Clock
	log   *slog.Logger
	asked chan struct{}
}

// NewNotifier returns a notifier that does nothing until Run.
func NewNotifier(pool *pgxpool.Pool, c clock.Clock, log *slog.Logger) *Notifier {
	return &Notifier{pool: pool, clock: c, log: log, asked: make(chan struct{}, 1)}
}

// Notify asks for a wake-up. It never blocks. Call it after the commit.
func (n *Notifier) Notify() {
	select {
	case n.asked <- struct{}{}:
	default: // one is on its way, and it comes after this commit too
	}
}

// Run sends the notifications until ctx ends and returns nil.
func (n *Notifier) Run(ctx context.Context) error {
	turns := n.Loops.Start("outbox.notifier")
	defer turns.End()
	turns.Rest(forEver)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-n.asked:
		}
		turns.Resume()
		err := n.send(ctx)
		if errors.Is(err, context.DeadlineExceeded) {
			n.Notify() // until one goes through: the loop stands still so long
		} else {
			turns.Rest(forEver)
		}
		if err != nil && ctx.Err() == nil {
			n.log.LogAttrs(ctx, slog.LevelDebug, "outbox wake-up not sent; the poll covers it", slog.Any("err", err))
		}
		if clock.Sleep(ctx, n.clock, notifyEvery) != nil {
			return nil
		}
	}
}

func (n *Notifier) send(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, notifyTimeout)
	defer cancel()
	_, err := n.pool.Exec(ctx, notifySQL)
	return err
}

// Listener hears the notifications on a connection of its own, outside the pool,
// and reconnects for ever.
type Listener struct {
	// Pool gives the address and role; its connections are not used.
	Pool *pgxpool.Pool
	// Clock times the reconnections.
	Clock clock.Clock
	// Logger gets losses of the connection.
	Logger *slog.Logger
}

// Run calls heard, from one goroutine, after every notification and after every
// connection, since notifications may have been missed before it. It returns nil
// when ctx ends. heard must not block.
func (l *Listener) Run(ctx context.Context, heard func()) error {
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval, pause.MaxInterval = 100*time.Millisecond, 5*time.Second
	for {
		err := l.session(ctx, func() {
			pause.Reset()
			heard()
		})
		if ctx.Err() != nil {
			return nil
		}
		delay := pause.NextBackOff()
		l.Logger.LogAttrs(ctx, slog.LevelWarn, "outbox listener not connected", slog.Duration("retry_in", delay), slog.Any("err", err))
		if clock.Sleep(ctx, l.Clock, delay) != nil {
			return nil
		}
	}
}

// session listens on one connection until it fails or ctx ends.
func (l *Listener) session(ctx context.Context, heard func()) error {
	conn, err := l.connect(ctx)
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), notifyTimeout)
		defer cancel()
		_ = conn.Close(ctx) // nothing is pending on it
	}()
	for heard(); ; {
		notified, err := l.wait(ctx, conn)
		if err != nil {
			return fmt.Errorf("wait for a notification: %w", err)
		}
		if notified {
			heard()
		}
	}
}

// connect opens a connection that listens.
func (l *Listener) connect(ctx context.Context) (*pgx.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, connectionLimit)
	defer cancel()
	conn, err := pgx.ConnectConfig(ctx, l.Pool.Config().ConnConfig)
	if err != nil {
		return nil, fmt.Errorf("connect the listener: %w", err)
	}
	if _, err := conn.Exec(ctx, listenSQL); err != nil {
		_ = conn.Close(ctx) // it was not used
		return nil, fmt.Errorf("listen: %w", err)
	}
	return conn, nil
}

// wait waits for a notification. A connection that was silent for listenCheck has to
// answer: one that was forgotten by a router in between would be silent for ever.
func (l *Listener) wait(ctx context.Context, conn *pgx.Conn) (notified bool, err error) {
	quiet, cancel := context.WithTimeout(ctx, listenCheck)
	defer cancel()
	_, err = conn.WaitForNotification(quiet)
	if err == nil || ctx.Err() != nil || quiet.Err() == nil {
		return err == nil, err
	}
	ping, cancel := context.WithTimeout(ctx, connectionLimit)
	defer cancel()
	return false, conn.Ping(ping)
}
