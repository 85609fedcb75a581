package outbox

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/jobs"
	"github.com/turumba/turumba/kit/pg"
)

const (
	channel   = "outbox_channel"
	notifySQL = "SELECT pg_notify('" + channel + "', '')"

	// notifyEvery is the least time between two notifications of a process: one
	// in every transaction would serialise the commits of the whole server.
	notifyEvery   = 10 * time.Millisecond
	notifyTimeout = time.Second

	// forEver is how long nothing may be asked for.
	forEver = 100 * 365 * 24 * time.Hour
)

// Notifier wakes the relays of other processes after commits, at most once per
// 10 ms however often it is asked.
type Notifier struct {
	// Loops get the finished turns; nil tells nobody.
	Loops *jobs.Loops

	db    *pg.DB
	clock clock.Clock
	log   *slog.Logger
	asked chan struct{}
}

// NewNotifier returns a notifier that does nothing until Run.
func NewNotifier(db *pg.DB, c clock.Clock, log *slog.Logger) *Notifier {
	return &Notifier{db: db, clock: c, log: log, asked: make(chan struct{}, 1)}
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
	_, err := n.db.Exec(ctx, notifySQL)
	return err
}

// Listener hears the notifications on a connection of its own, outside the pool,
// and reconnects for ever.
type Listener struct {
	// DB gives the address and role; its connections are not used.
	DB *pg.DB
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
		err := l.DB.Listen(ctx, channel, func() {
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
