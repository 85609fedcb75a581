package pg

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Setting is a setting of PostgreSQL, for With.
type Setting struct{ name, value string }

// Set is a setting and its value, both constants of the program: they stand in
// statements as they are.
func Set(name, value string) Setting { return Setting{name: name, value: value} }

// With returns a handle on the same pool, all of whose transactions run with the settings
// besides.
func (db *DB) With(settings ...Setting) *DB {
	derived := *db
	derived.settings = append(append([]Setting(nil), db.settings...), settings...)
	return &derived
}

// Exec runs a statement that needs no tenant, in a transaction of its own. Like all
// statements it may take as long as the handle's limit (Limit; Within); then, and when the
// server cannot be reached, it is UNAVAILABLE.
func (db *DB) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	if len(db.settings) == 0 {
		limited, cancel := db.bounded(ctx)
		defer cancel()
		tag, err := db.pool.Exec(limited, sql, args...)
		return tag, db.ended(ctx, err)
	}
	results := db.SendBatch(ctx, single(sql, args))
	tag, err := results.Exec()
	return tag, first(err, results.Close())
}

// Query runs a query that needs no tenant; reading its rows is within the limit too. The
// rows must be closed, which pgx.CollectRows and its like do.
func (db *DB) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	if len(db.settings) > 0 {
		results := db.SendBatch(ctx, single(sql, args))
		list, err := results.Query()
		if err != nil {
			return list, first(err, results.Close())
		}
		return &rows{Rows: list, done: func(err error) error { return first(err, results.Close()) }}, nil
	}
	limited, cancel := db.bounded(ctx)
	list, err := db.pool.Query(limited, sql, args...)
	if err != nil {
		cancel()
		return list, db.ended(ctx, err)
	}
	return &rows{Rows: list, done: func(err error) error {
		cancel()
		return db.ended(ctx, err)
	}}, nil
}

// QueryRow runs a query of one row that needs no tenant. The row must be scanned.
func (db *DB) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	rows, err := db.Query(ctx, sql, args...)
	return &row{rows: rows, err: err}
}

// SendBatch runs statements as one transaction in one round trip; reading the results is
// within the limit too. They must be closed.
func (db *DB) SendBatch(ctx context.Context, statements *pgx.Batch) pgx.BatchResults {
	batch := statements
	if len(db.settings) > 0 {
		batch = &pgx.Batch{}
		for _, s := range db.settings {
			batch.Queue("select set_config($1, $2, true)", s.name, s.value)
		}
		batch.QueuedQueries = append(batch.QueuedQueries, statements.QueuedQueries...)
	}
	limited, cancel := db.bounded(ctx)
	results := &batchResults{BatchResults: db.pool.SendBatch(limited, batch), db: db, ctx: ctx, cancel: cancel}
	for range db.settings {
		if _, err := results.Exec(); err != nil {
			break // the caller's next call tells it too
		}
	}
	return results
}

func single(sql string, args []any) *pgx.Batch {
	batch := &pgx.Batch{}
	batch.Queue(sql, args...)
	return batch
}

func first(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// batchResults are the results of a batch with a deadline.
type batchResults struct {
	pgx.BatchResults
	db     *DB
	ctx    context.Context // the caller's
	cancel context.CancelFunc
}

// Exec implements pgx.BatchResults.
func (r *batchResults) Exec() (pgconn.CommandTag, error) {
	tag, err := r.BatchResults.Exec()
	return tag, r.db.ended(r.ctx, err)
}

// Query implements pgx.BatchResults.
func (r *batchResults) Query() (pgx.Rows, error) {
	list, err := r.BatchResults.Query()
	if err != nil {
		return list, r.db.ended(r.ctx, err)
	}
	return &rows{Rows: list, done: func(err error) error { return r.db.ended(r.ctx, err) }}, nil
}

// QueryRow implements pgx.BatchResults.
func (r *batchResults) QueryRow() pgx.Row {
	list, err := r.Query()
	return &row{rows: list, err: err}
}

// Close implements pgx.BatchResults.
func (r *batchResults) Close() error {
	err := r.BatchResults.Close()
	r.cancel()
	return r.db.ended(r.ctx, err)
}

// rows are rows whose reading has a deadline.
type rows struct {
	pgx.Rows
	done   func(error) error // called once at the end, with the error of the rows; says what callers see
	closed bool
	err    error
}

// Next implements pgx.Rows.
func (r *rows) Next() bool {
	if r.Rows.Next() {
		return true
	}
	r.Close()
	return false
}

// Close implements pgx.Rows.
func (r *rows) Close() {
	if r.closed {
		return
	}
	r.closed = true
	r.Rows.Close()
	r.err = r.done(r.Rows.Err())
}

// Err implements pgx.Rows.
func (r *rows) Err() error {
	if r.closed {
		return r.err
	}
	return r.Rows.Err()
}

// row is the first row of a query.
type row struct {
	rows pgx.Rows
	err  error
}

// Scan implements pgx.Row.
func (r *row) Scan(dest ...any) error {
	if r.err != nil {
		return r.err
	}
	defer r.rows.Close()
	if !r.rows.Next() {
		return first(r.rows.Err(), pgx.ErrNoRows)
	}
	if err := r.rows.Scan(dest...); err != nil {
		return err
	}
	r.rows.Close()
	return r.rows.Err()
}

// Ping reports whether the server answers within pingLimit, over a connection of the pool.
func (db *DB) Ping(ctx context.Context) error {
	limited, cancel := context.WithTimeout(ctx, pingLimit)
	defer cancel()
	return db.ended(ctx, db.pool.Ping(limited))
}

// listenCheck is after how long without a notification a listener asks whether the server
// still answers.
const listenCheck = 10 * time.Second

// Listen hears the notifications of a channel on a connection of its own, outside the
// pool. It calls heard, which must not block, once it listens and after every
// notification, and returns when the connection fails or ctx ends. A server that is silent
// counts as a failure within listenCheck and pingLimit. What was sent while nobody
// listened is lost.
func (db *DB) Listen(ctx context.Context, channel string, heard func()) error {
	conn, err := pgx.ConnectConfig(ctx, db.pool.Config().ConnConfig) // has a ConnectTimeout
	if err != nil {
		return fmt.Errorf("connect the listener: %w", err)
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), pingLimit)
		defer cancel()
		_ = conn.Close(ctx) // nothing is pending on it
	}()
	limited, cancel := db.bounded(ctx)
	defer cancel()
	if _, err := conn.Exec(limited, "LISTEN "+pgx.Identifier{channel}.Sanitize()); err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	heard()
	for {
		if err := notified(ctx, conn, heard); err != nil {
			return fmt.Errorf("wait for a notification: %w", err)
		}
	}
}

// notified waits for a notification, or finds after listenCheck that the server answers.
func notified(ctx context.Context, conn *pgx.Conn, heard func()) error {
	quiet, cancel := context.WithTimeout(ctx, listenCheck)
	defer cancel()
	_, err := conn.WaitForNotification(quiet)
	switch {
	case err == nil:
		heard()
		return nil
	case ctx.Err() != nil || quiet.Err() == nil || conn.IsClosed():
		return err
	}
	ping, cancel := context.WithTimeout(ctx, pingLimit)
	defer cancel()
	return conn.Ping(ping)
}
