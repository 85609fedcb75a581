package pg

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/turumba/turumba/kit/clock"
)

// Every statement, and every transaction as a whole, has a deadline of its own here,
// whatever the caller's context says (ADR 0040). It includes the wait for a connection.
const (
	// Limit is the deadline of a statement or transaction; Within moves it.
	Limit = 10 * time.Second
	// answerMargin is how much earlier the server gives a statement up: a server that
	// works tells so over a connection that stays good, and who runs into our own deadline
	// met a server that is silent.
	answerMargin = time.Second
	// lockLimit is how long a statement waits for a lock: less than it may take in all.
	lockLimit = 8 * time.Second
	// idleInTxLimit is after how long the server ends a transaction whose client says
	// nothing, for example because it is gone: its locks are in the way of others.
	idleInTxLimit = 10 * time.Second
	// pingLimit is how long an idle connection may take to prove that it works.
	pingLimit = 2 * time.Second
	// trusted is how long a connection that was used counts as working.
	trusted = time.Second
	// checkEvery is the least time between two checks of all idle connections.
	checkEvery = time.Second
)

// Within returns a handle on the same pool, each of whose statements and transactions may
// take as long as limit. It is for work that is known to take longer than Limit; say why
// at the call.
func (db *DB) Within(limit time.Duration) *DB {
	derived := *db
	derived.limit = limit
	if limit > Limit {
		return derived.With(Set("statement_timeout", milliseconds(limit-answerMargin)))
	}
	return &derived
}

func milliseconds(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }

// bounded is ctx with the deadline of the handle.
func (db *DB) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, db.limit)
}

// ended translates how a statement ended, for a caller with ctx, and looks after the
// pool where the server was silent or went away.
func (db *DB) ended(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded), gone(err):
		db.idle.check(db.pool)
	case readOnly(code(err)):
		db.pool.Reset() // after a failover the name leads to another server
	}
	return translate(ctx, err)
}

// idleCheck tests idle connections. When one connection has gone silent or was lost, the
// others of the pool likely have too, by the same failover or frozen host: each would cost
// somebody a deadline.
type idleCheck struct {
	busy atomic.Bool
	last atomic.Int64 // time of the last check, Unix nanoseconds
}

// check asks all idle connections at once, in the background, and closes those that do not
// answer. While they are asked, who needs a connection opens a new one.
func (i *idleCheck) check(pool *pgxpool.Pool) {
	now := clock.System().Now().UnixNano()
	if now-i.last.Load() < int64(checkEvery) || !i.busy.CompareAndSwap(false, true) {
		return
	}
	i.last.Store(now)
	conns := pool.AcquireAllIdle(context.Background())
	go func() {
		defer i.busy.Store(false)
		asked := make(chan struct{})
		for _, c := range conns {
			go func() {
				answers(context.Background(), c.Conn())
				c.Release() // closes what was found dead
				asked <- struct{}{}
			}()
		}
		for range conns {
			<-asked
		}
	}()
}

// answers reports whether the server answers on a connection before ctx ends; one that does
// not is closed.
func answers(ctx context.Context, conn *pgx.Conn) bool {
	ctx, cancel := context.WithTimeout(ctx, pingLimit)
	defer cancel()
	return conn.Ping(ctx) == nil
}

// watch makes the pool test a connection that was idle before it is used, within
// pingLimit and the time that the caller has, and the others too when it is dead.
func (i *idleCheck) watch(pc *pgxpool.Config, pool func() *pgxpool.Pool) {
	pc.ShouldPing = func(ctx context.Context, p pgxpool.ShouldPingParams) bool {
		if p.IdleDuration <= trusted || answers(ctx, p.Conn) {
			return false
		}
		if ctx.Err() == nil { // else it had no time to answer
			i.check(pool())
		}
		return true // the pool's own ping fails on the closed connection, and it takes the next one
	}
	// A connection that was given up in the middle of a statement holds its place in the
	// pool until the server has said goodbye, at most 15 s, which a silent one never does.
	pc.BeforeClose = func(conn *pgx.Conn) {
		if conn.IsClosed() {
			_ = conn.PgConn().Conn().Close()
		}
	}
}

// limitTx is a transaction each of whose statements ends with the transaction's deadline.
type limitTx struct {
	pgx.Tx
	caller context.Context // of who began it
	whole  context.Context // the same with the deadline
	// ends are called at the end of the transaction.
	ends *[]context.CancelFunc
}

// bounded is ctx with the deadline of the transaction.
func (t *limitTx) bounded(ctx context.Context) context.Context {
	if ctx == t.caller {
		return t.whole
	}
	if ctx.Done() == t.caller.Done() {
		return derived{values: ctx, Context: t.whole}
	}
	until, _ := t.whole.Deadline()
	if d, ok := ctx.Deadline(); ok && !d.After(until) {
		return ctx
	}
	ctx, cancel := context.WithDeadline(ctx, until)
	*t.ends = append(*t.ends, cancel)
	return ctx
}

// derived has the values of one context and the end of another.
type derived struct {
	context.Context
	values context.Context
}

// Value implements context.Context.
func (d derived) Value(key any) any { return d.values.Value(key) }

// AfterFunc spares context.AfterFunc a goroutine.
func (d derived) AfterFunc(f func()) func() bool { return context.AfterFunc(d.Context, f) }

// Begin implements pgx.Tx: a savepoint.
func (t *limitTx) Begin(ctx context.Context) (pgx.Tx, error) {
	point, err := t.Tx.Begin(t.bounded(ctx))
	if err != nil {
		return nil, err
	}
	inner := *t
	inner.Tx = point
	return &inner, nil
}

// Exec implements pgx.Tx.
func (t *limitTx) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	return t.Tx.Exec(t.bounded(ctx), sql, args...)
}

// Query implements pgx.Tx.
func (t *limitTx) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	return t.Tx.Query(t.bounded(ctx), sql, args...)
}

// QueryRow implements pgx.Tx.
func (t *limitTx) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	return t.Tx.QueryRow(t.bounded(ctx), sql, args...)
}

// SendBatch implements pgx.Tx.
func (t *limitTx) SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults {
	return t.Tx.SendBatch(t.bounded(ctx), b)
}

// CopyFrom implements pgx.Tx.
func (t *limitTx) CopyFrom(ctx context.Context, table pgx.Identifier, columns []string, rows pgx.CopyFromSource) (int64, error) {
	return t.Tx.CopyFrom(t.bounded(ctx), table, columns, rows)
}

// Prepare implements pgx.Tx.
func (t *limitTx) Prepare(ctx context.Context, name, sql string) (*pgconn.StatementDescription, error) {
	return t.Tx.Prepare(t.bounded(ctx), name, sql)
}

// Commit implements pgx.Tx.
func (t *limitTx) Commit(ctx context.Context) error { return t.Tx.Commit(t.bounded(ctx)) }

// Rollback implements pgx.Tx.
func (t *limitTx) Rollback(ctx context.Context) error { return t.Tx.Rollback(t.bounded(ctx)) }

// Conn implements pgx.Tx. It returns nil: what runs on the connection itself would have no
// deadline.
func (t *limitTx) Conn() *pgx.Conn { return nil }

// LargeObjects implements pgx.Tx. It cannot be used: its statements would have no
// deadline, and nothing in the product has any.
func (t *limitTx) LargeObjects() pgx.LargeObjects { return pgx.LargeObjects{} }

// end frees what statements with contexts of their own left.
func (t *limitTx) end() {
	for _, cancel := range slices.Backward(*t.ends) {
		cancel()
	}
}
