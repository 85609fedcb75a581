// Package pg is how services reach PostgreSQL: a pool that runs as one of the
// product's roles, transactions that carry the tenant and one time, reads in
// one round trip, and migrations. SQL itself stays in the stores.
package pg

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/turumba/turumba/kit/clock"
)

// The roles of the product. The owner migrates and cannot log in; the other two
// are reached by SET ROLE or as logins, and never bypass row-level security.
const (
	RoleOwner  = "turumba_owner"
	RoleAPI    = "turumba_api"
	RoleWorker = "turumba_worker"
)

// connectLimit is how long a start waits for a server that does not answer.
const connectLimit = 10 * time.Second

// Config says where the database is and how to work in it.
type Config struct {
	// URL is a PostgreSQL connection URL (postgres://…).
	URL string
	// Role is the role that every session works as; empty keeps the login's own.
	Role string
	// MaxConns is the most connections of the pool; 0 means 16.
	MaxConns int32
	// Clock gives transactions their time.
	Clock clock.Clock
	// Name appears as application_name.
	Name string
}

// DB is a pool of connections that work as one role.
type DB struct {
	pool  *pgxpool.Pool
	clock clock.Clock
}

// Open connects and checks that the server answers. Its error is one line that
// names the server, never the password.
func Open(ctx context.Context, cfg Config) (*DB, error) {
	pc, err := pgxpool.ParseConfig(cfg.URL)
	if err != nil {
		return nil, fmt.Errorf("DATABASE_URL is not a PostgreSQL URL (expected postgres://user:password@host:port/database)")
	}
	pc.MaxConns = cfg.MaxConns
	if pc.MaxConns == 0 {
		pc.MaxConns = 16
	}
	params := pc.ConnConfig.RuntimeParams
	params["application_name"] = cfg.Name
	params["idle_in_transaction_session_timeout"] = "60s"
	params["timezone"] = "UTC"
	// On a young, churning table a plan chosen from stale statistics is a cliff.
	params["plan_cache_mode"] = "auto"
	if cfg.Role != "" {
		params["role"] = cfg.Role
	}
	pool, err := pgxpool.NewWithConfig(ctx, pc)
	if err != nil {
		return nil, fmt.Errorf("open the database: %w", err)
	}
	ping, cancel := context.WithTimeout(ctx, connectLimit)
	defer cancel()
	if err := pool.Ping(ping); err != nil {
		pool.Close()
		return nil, unreachable(cfg.URL, err)
	}
	return &DB{pool: pool, clock: cfg.Clock}, nil
}

// unreachable says in one line which server did not answer and why.
func unreachable(rawURL string, err error) error {
	where := "the database"
	if u, perr := url.Parse(rawURL); perr == nil {
		where = fmt.Sprintf("the database %s at %s", strings.TrimPrefix(u.Path, "/"), u.Host)
		if host := u.Query().Get("host"); host != "" {
			where += host
		}
	}
	var server *pgconn.PgError
	if errors.As(err, &server) {
		return fmt.Errorf("cannot use %s: %s (check DATABASE_URL)", where, server.Message)
	}
	reason := err.Error()
	if i := strings.LastIndex(reason, ": "); i >= 0 {
		reason = reason[i+2:]
	}
	return fmt.Errorf("cannot reach %s: %s (check DATABASE_URL)", where, strings.TrimSpace(reason))
}

// Pool is the pool itself, for statements that need no tenant.
func (db *DB) Pool() *pgxpool.Pool { return db.pool }

// Now is the current time as PostgreSQL stores it: UTC, in microseconds.
func (db *DB) Now() time.Time { return db.clock.Now().UTC().Truncate(time.Microsecond) }

// Close closes every connection; it waits for those in use.
func (db *DB) Close() { db.pool.Close() }

// NoRows returns notFound where err says that no row was found, and err as it
// is otherwise.
func NoRows(err, notFound error) error {
	if errors.Is(err, pgx.ErrNoRows) {
		return notFound
	}
	return err
}

// IsUnique reports whether err is the violation of the named unique constraint
// or index; an empty name means any.
func IsUnique(err error, constraint string) bool { return violates(err, "23505", constraint) }

// IsForeignKey reports whether err is the violation of the named foreign key;
// an empty name means any.
func IsForeignKey(err error, constraint string) bool { return violates(err, "23503", constraint) }

func violates(err error, code, constraint string) bool {
	var e *pgconn.PgError
	if !errors.As(err, &e) || e.Code != code {
		return false
	}
	return constraint == "" || e.ConstraintName == constraint
}
