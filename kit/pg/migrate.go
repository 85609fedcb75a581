package pg

import (
	"context"
	"database/sql"
	_ "embed" // for prepare.sql
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"

	"github.com/turumba/turumba/kit/clock"
)

// MigrationSet is a folder of forward-only SQL migrations with a version of its
// own in the database.
type MigrationSet struct {
	// Name names the version table: goose_<name>.
	Name string
	// FS has the *.sql files at its root.
	FS fs.FS
}

// migrationLockID is the advisory lock of whoever migrates a database.
const migrationLockID = 7_319_003

const (
	// migrateLimit is how long the migrations of one set may take, with the wait for another
	// process that migrates: they rewrite tables of millions of rows.
	migrateLimit = time.Hour
	// prepareLimit is how long it may take to make roles and extensions, or a database.
	prepareLimit = time.Minute
)

// lockPoll is how often a busy lock is asked for again.
const lockPoll = 50 * time.Millisecond

// prepareAttempts is how often a lost race for a role is run again: with n
// processes each round has a winner.
const prepareAttempts = 30

// Migrate brings the database at adminURL to the newest version of every set,
// in order, under a lock, so that several processes may start at once. It
// creates the roles and the extensions that the product uses; tables belong to
// turumba_owner. A database that is newer than the code is an error.
func Migrate(ctx context.Context, adminURL string, sets ...MigrationSet) error {
	if err := prepare(ctx, adminURL); err != nil {
		return err
	}
	cfg, err := pgx.ParseConfig(adminURL)
	if err != nil {
		return fmt.Errorf("migrate: DATABASE_URL is not a PostgreSQL URL")
	}
	dialled(cfg)
	setSession(cfg.RuntimeParams, migrateLimit)
	delete(cfg.RuntimeParams, "lock_timeout") // indexes that are made beside traffic wait for long transactions
	cfg.RuntimeParams["role"] = RoleOwner
	db := stdlib.OpenDB(*cfg)
	defer func() { _ = db.Close() }() // nothing is pending on it
	for _, set := range sets {
		if err := migrateSet(ctx, db, set); err != nil {
			return fmt.Errorf("migrate %s: %w", set.Name, err)
		}
	}
	return nil
}

func migrateSet(ctx context.Context, db *sql.DB, set MigrationSet) error {
	ctx, cancel := context.WithTimeout(ctx, migrateLimit)
	defer cancel()
	p, err := goose.NewProvider(goose.DialectPostgres, db, set.FS,
		goose.WithTableName("goose_"+set.Name), goose.WithSessionLocker(migrationLock{}), goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return err
	}
	current, err := p.GetDBVersion(ctx)
	if err != nil {
		return err
	}
	sources := p.ListSources()
	if newest := sources[len(sources)-1].Version; current > newest {
		return fmt.Errorf("the database is at version %d, this program knows %d: run a newer program", current, newest)
	}
	_, err = p.Up(ctx)
	return err
}

// prepareSQL makes what migrations stand on: roles, extensions, and a schema
// that the owner role owns.
//
//go:embed prepare.sql
var prepareSQL string

// prepare runs prepareSQL. Roles belong to the whole cluster and PostgreSQL has
// no lock of that reach: whoever loses a race for them looks again.
func prepare(ctx context.Context, adminURL string) error {
	ctx, cancel := context.WithTimeout(ctx, prepareLimit)
	defer cancel()
	conn, err := connect(ctx, adminURL)
	if err != nil {
		return unreachable(adminURL, err)
	}
	defer func() { _ = conn.Close(ctx) }() // nothing is pending on it
	for attempt := 1; ; attempt++ {
		_, err = conn.Exec(ctx, prepareSQL) // one implicit transaction
		if !lostRace(err) || attempt == prepareAttempts {
			break
		}
		if err := clock.Sleep(ctx, clock.System(), time.Duration(attempt)*lockPoll); err != nil {
			return err
		}
	}
	var server *pgconn.PgError
	if errors.As(err, &server) {
		return fmt.Errorf("prepare the database: %s", server.Message)
	}
	return err
}

// connect opens one connection, outside any pool. Its statements are bounded by ctx, which
// must have a deadline.
func connect(ctx context.Context, rawURL string) (*pgx.Conn, error) {
	cfg, err := pgx.ParseConfig(rawURL)
	if err != nil {
		return nil, err
	}
	dialled(cfg)
	setSession(cfg.RuntimeParams, prepareLimit)
	return pgx.ConnectConfig(ctx, cfg)
}

// lostRace reports whether another process changed the same shared row first:
// a duplicate, a deadlock, or "tuple concurrently updated" (an internal error to
// PostgreSQL).
func lostRace(err error) bool {
	var e *pgconn.PgError
	if !errors.As(err, &e) {
		return false
	}
	return slices.Contains([]string{"23505", "42710", "40P01"}, e.Code) ||
		e.Code == "XX000" && strings.HasPrefix(e.Message, "tuple concurrently")
}

// migrationLock is held by the one process that migrates a database. It asks
// again and again instead of waiting inside PostgreSQL, where a waiting session
// keeps a snapshot that CREATE INDEX CONCURRENTLY of the holder would wait for.
type migrationLock struct{}

// SessionLock waits until the session holds the lock, or ctx ends.
func (migrationLock) SessionLock(ctx context.Context, conn *sql.Conn) error {
	for {
		var held bool
		err := conn.QueryRowContext(ctx, "SELECT pg_try_advisory_lock($1)", migrationLockID).Scan(&held)
		if err != nil {
			return fmt.Errorf("lock the migrations: %w", err)
		}
		if held {
			return nil
		}
		if err := clock.Sleep(ctx, clock.System(), lockPoll); err != nil {
			return fmt.Errorf("wait for another process that migrates: %w", err)
		}
	}
}

// SessionUnlock frees the lock.
func (migrationLock) SessionUnlock(ctx context.Context, conn *sql.Conn) error {
	_, err := conn.ExecContext(ctx, "SELECT pg_advisory_unlock($1)", migrationLockID)
	return err
}

// EnsureDatabase creates the database of rawURL if the server lacks it. It
// connects to the database "postgres" of the same server to look.
func EnsureDatabase(ctx context.Context, rawURL string) error {
	u, err := url.Parse(rawURL)
	if err != nil || u.Path == "" || u.Path == "/" {
		return errors.New("DATABASE_URL must name a database (postgres://user:password@host:port/database)")
	}
	name := u.Path[1:]
	u.Path = "/postgres"
	ctx, cancel := context.WithTimeout(ctx, prepareLimit)
	defer cancel()
	conn, err := connect(ctx, u.String())
	if err != nil {
		return unreachable(rawURL, err)
	}
	defer func() { _ = conn.Close(ctx) }() // nothing is pending on it
	var exists bool
	if err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", name).Scan(&exists); err != nil {
		return fmt.Errorf("look for database %s: %w", name, err)
	}
	if exists {
		return nil
	}
	_, err = conn.Exec(ctx, "CREATE DATABASE "+pgx.Identifier{name}.Sanitize())
	if err != nil && !violates(err, "42P04", "") && !violates(err, "23505", "") {
		return fmt.Errorf("create database %s: %w", name, err)
	}
	return nil
}
