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

// Exec runs a statement that needs no tenant, in a transaction of its own.
func (db *DB) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	if len(db.settings) == 0 {
		tag, err := db.pool.Exec(ctx, sql, args...)
		return tag, translate(ctx, err)
	}
	results := db.SendBatch(ctx, single(sql, args))
	tag, err := results.Exec()
	return tag, first(err, results.Close())
}

// Query runs a query that needs no tenant. The rows must be closed, which
// pgx.CollectRows and its like do.
func (db *DB) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	if len(db.settings) == 0 {
		rows, err := db.pool.Query(ctx, sql, args...)
		return rows, translate(ctx, err)
	}
	results := db.SendBatch(ctx, single(sql, args))
	rows, err := results.Query()
	if err != nil {
		return rows, first(err, results.Close())
	}
	return &batchRows{Rows: rows, results: results}, nil
}

// QueryRow runs a query of one row that needs no tenant. Its row must be scanned.
func (db *DB) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	rows, err := db.Query(ctx, sql, args...)
	return &row{rows: rows, err: err}
}

// SendBatch runs statements as one transaction in one round trip. The results must be
// closed.
func (db *DB) SendBatch(ctx context.Context, statements *pgx.Batch) pgx.BatchResults {
	if len(db.settings) == 0 {
		return &batchResults{BatchResults: db.pool.SendBatch(ctx, statements), ctx: ctx}
	}
	batch := &pgx.Batch{}
	for _, s := range db.settings {
		batch.Queue("select set_config($1, $2, true)", s.name, s.value)
	}
	batch.QueuedQueries = append(batch.QueuedQueries, statements.QueuedQueries...)
	results := &batchResults{BatchResults: db.pool.SendBatch(ctx, batch), ctx: ctx}
	for range db.settings {
		if _, err := results.Exec(); err != nil {
			break // what follows tells it too
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

// batchResults translates the errors of a batch.
type batchResults struct {
	pgx.BatchResults
	ctx context.Context
}

// Exec implements pgx.BatchResults.
func (r *batchResults) Exec() (pgconn.CommandTag, error) {
	tag, err := r.BatchResults.Exec()
	return tag, translate(r.ctx, err)
}

// Query implements pgx.BatchResults.
func (r *batchResults) Query() (pgx.Rows, error) {
	rows, err := r.BatchResults.Query()
	return rows, translate(r.ctx, err)
}

// Close implements pgx.BatchResults.
func (r *batchResults) Close() error { return translate(r.ctx, r.BatchResults.Close()) }

// batchRows are the rows of a batch's only query.
type batchRows struct {
	pgx.Rows
	results pgx.BatchResults
	err     error
}

// Close implements pgx.Rows.
func (r *batchRows) Close() {
	r.Rows.Close()
	r.err = first(r.err, r.results.Close())
}

// Err implements pgx.Rows.
func (r *batchRows) Err() error { return first(r.Rows.Err(), r.err) }

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

// Ping reports whether the server answers.
func (db *DB) Ping(ctx context.Context) error { return translate(ctx, db.pool.Ping(ctx)) }

// hangUpLimit is how long a connection may take to say goodbye.
const hangUpLimit = time.Second

// Listen hears the notifications of a channel on a connection of its own, outside the
// pool. It calls heard, which must not block, once it listens and after every
// notification, and returns when the connection fails or ctx ends. What was sent while
// nobody listened is lost.
func (db *DB) Listen(ctx context.Context, channel string, heard func()) error {
	conn, err := pgx.ConnectConfig(ctx, db.pool.Config().ConnConfig)
	if err != nil {
		return fmt.Errorf("connect the listener: %w", err)
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), hangUpLimit)
		defer cancel()
		_ = conn.Close(ctx) // nothing is pending on it
	}()
	if _, err := conn.Exec(ctx, "LISTEN "+pgx.Identifier{channel}.Sanitize()); err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	for {
		heard()
		if _, err := conn.WaitForNotification(ctx); err != nil {
			return fmt.Errorf("wait for a notification: %w", err)
		}
	}
}
