package pg

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/turumba/turumba/kit/failpoint"
	"github.com/turumba/turumba/kit/telemetry"
)

// rollbackLimit is how long a rollback may take; it outlives the request.
const rollbackLimit = 5 * time.Second

// Tx is a transaction with one time: everything written in it agrees on Now.
type Tx struct {
	pgx.Tx
	// Now is the time of the transaction, in microseconds, UTC.
	Now time.Time
	// replay is the idempotency key that Respond will fill; nil without one.
	replay *replayKey
	// responded is whether Respond filled it.
	responded bool
	// committed are called after the commit.
	committed []func()
	// db and woken are for Wake; a Tx that is made by hand wakes nobody.
	db    *DB
	woken []any
}

// OnCommit calls do once the transaction has committed; not at all otherwise.
func (tx *Tx) OnCommit(do func()) { tx.committed = append(tx.committed, do) }

// InTx runs fn in a transaction: it commits when fn returns nil and rolls back
// otherwise, even when ctx is cancelled. scope is the accounts that row-level
// security and the tenant views let through; nil sets none, for tables without
// a tenant. fn must not call the network. A server that cannot be reached is
// UNAVAILABLE.
func (db *DB) InTx(ctx context.Context, scope []string, fn func(tx *Tx) error) error {
	return translate(ctx, db.inTx(ctx, scope, fn))
}

func (db *DB) inTx(ctx context.Context, scope []string, fn func(tx *Tx) error) error {
	begin, err := beginQuery(ctx, scope)
	if err != nil {
		return err
	}
	ptx, err := db.pool.BeginTx(ctx, pgx.TxOptions{BeginQuery: begin})
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	tx := &Tx{Tx: ptx, Now: db.Now(), db: db}
	committed := false
	defer func() {
		if !committed {
			rollback(ctx, ptx)
		}
	}()
	if err := fn(tx); err != nil {
		return err
	}
	if tx.replay != nil && !tx.responded {
		return errors.New("commit: the idempotency key was claimed and no response stored")
	}
	if err := tx.answering(ctx, failpoint.APIBeforeCommit); err != nil {
		return err
	}
	if err := ptx.Commit(ctx); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	committed = true
	for _, do := range tx.committed {
		do()
	}
	return tx.answering(ctx, failpoint.APIAfterCommit)
}

// answering is a failpoint of transactions that answer a call.
func (tx *Tx) answering(ctx context.Context, p failpoint.Point) error {
	if !tx.responded {
		return nil
	}
	return failpoint.Hit(ctx, p)
}

// rollback frees the connection although the caller may be gone.
func rollback(ctx context.Context, tx pgx.Tx) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollbackLimit)
	defer cancel()
	// A failed rollback closes the connection, which rolls back too.
	_ = tx.Rollback(ctx)
}

// beginQuery starts a transaction and sets its tenants, and the trace that its rows
// carry on, in one round trip. The ids are parsed first: nothing else can get into
// the statement.
func beginQuery(ctx context.Context, scope []string) (string, error) {
	begin := "begin"
	if traceparent := telemetry.Traceparent(ctx); traceparent != "" {
		begin += "; set local app.traceparent = '" + traceparent + "'"
	}
	if scope == nil {
		return begin, nil
	}
	ids, err := scopeSetting(scope)
	if err != nil {
		return "", err
	}
	return begin + "; set local app.accounts = '" + ids + "'", nil
}

func scopeSetting(scope []string) (string, error) {
	ids := make([]string, len(scope))
	for i, s := range scope {
		id, err := uuid.Parse(s)
		if err != nil {
			return "", fmt.Errorf("scope: %q is not a UUID", s)
		}
		ids[i] = id.String()
	}
	return strings.Join(ids, ","), nil
}

// InBatch runs statements as one transaction in one round trip, with the tenants of scope
// set, and calls what is set on each of them. The transaction is committed before that is
// called: to undo the rest, a statement must fail.
func (db *DB) InBatch(ctx context.Context, scope []string, statements *pgx.Batch) error {
	ids, err := scopeSetting(scope)
	if err != nil {
		return err
	}
	// The statements of a batch are one implicit transaction.
	batch := &pgx.Batch{}
	batch.Queue("select set_config('app.accounts', $1, true), set_config('app.traceparent', $2, true)", ids, telemetry.Traceparent(ctx))
	batch.QueuedQueries = append(batch.QueuedQueries, statements.QueuedQueries...)
	return translate(ctx, db.pool.SendBatch(ctx, batch).Close())
}

// Read runs one query with the tenants set, in one round trip, and collects its
// rows. args may hold one pgx.StrictNamedArgs or positional values. A server
// that cannot be reached is UNAVAILABLE.
func Read[T any](ctx context.Context, db *DB, scope []string, collect func(pgx.Rows) (T, error), sql string, args ...any) (T, error) {
	var out, zero T
	ids, err := scopeSetting(scope)
	if err != nil {
		return zero, err
	}
	batch := &pgx.Batch{}
	// The statements of a batch are one implicit transaction.
	batch.Queue("select set_config('app.accounts', $1, true)", ids)
	batch.Queue(sql, args...)
	results := db.pool.SendBatch(ctx, batch)
	_, err = results.Exec()
	if err == nil {
		var rows pgx.Rows
		if rows, err = results.Query(); err == nil {
			out, err = collect(rows)
		}
	}
	if cerr := results.Close(); err == nil && cerr != nil {
		err = cerr
	}
	if err != nil {
		return zero, translate(ctx, err)
	}
	return out, nil
}

// One collects exactly one row into a T by its db tags or column names; no row
// is notFound.
func One[T any](notFound error) func(pgx.Rows) (*T, error) {
	return func(rows pgx.Rows) (*T, error) {
		v, err := pgx.CollectExactlyOneRow(rows, pgx.RowToAddrOfStructByName[T])
		if errors.Is(err, pgx.ErrNoRows) {
			return nil, notFound
		}
		return v, err
	}
}

// All collects every row into T values by their db tags or column names.
func All[T any](rows pgx.Rows) ([]*T, error) {
	return pgx.CollectRows(rows, pgx.RowToAddrOfStructByName[T])
}
