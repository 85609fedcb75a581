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

// The limits of every session; the URL's query string may set others, and a
// transaction may move its own by SET LOCAL.
const (
	statementLimit = "30s"
	lockLimit      = "10s"
	idleInTxLimit  = "60s"
)

// Config says where the database is and how to work in it.
type Config struct {
	// URL is a PostgreSQL connection URL (postgres://…).
	URL string
	// Role is the role that every session works as; empty keeps the login's own.
	Role string
	// MaxConns is the most connections of the pool; 0 means 16.
	MaxConns int32
	// Clock gives transactions their time; nil is the machine's.
	Clock clock.Clock
	// Name appears as application_name.
	Name string
	// Tracer sees every statement; nil traces none.
	Tracer pgx.QueryTracer
}

// DB is a pool of connections that work as one role.
type DB struct {
	pool  *pgxpool.Pool
	clock clock.Clock
	wakes wakes
}

// Open connects and checks that the server answers and that the role is bound
// by row-level security. Its error is one line that names the server, never the
// password.
func Open(ctx context.Context, cfg Config) (*DB, error) {
	pc, err := pgxpool.ParseConfig(cfg.URL)
	if err != nil {
		return nil, fmt.Errorf("DATABASE_URL is not a PostgreSQL URL (expected postgres://user:password@host:port/database)")
	}
	cfg.apply(pc)
	pc.AfterConnect = RegisterTypes
	pool, err := pgxpool.NewWithConfig(ctx, pc)
	if err != nil {
		return nil, fmt.Errorf("open the database: %w", err)
	}
	ping, cancel := context.WithTimeout(ctx, connectLimit)
	defer cancel()
	if err := check(ping, pool, cfg); err != nil {
		pool.Close()
		return nil, err
	}
	db := &DB{pool: pool, clock: cfg.Clock}
	if db.clock == nil {
		db.clock = clock.System()
	}
	return db, nil
}

// apply puts the settings of the product over those of the URL.
func (c Config) apply(pc *pgxpool.Config) {
	pc.MaxConns = c.MaxConns
	if pc.MaxConns == 0 {
		pc.MaxConns = 16
	}
	pc.MaxConnIdleTime = 5 * time.Minute
	pc.MaxConnLifetimeJitter = 5 * time.Minute // not all of them at once
	pc.ConnConfig.ConnectTimeout = connectLimit / 2
	pc.ConnConfig.Tracer = c.Tracer
	params := pc.ConnConfig.RuntimeParams
	for name, limit := range map[string]string{
		"statement_timeout": statementLimit, "lock_timeout": lockLimit, "idle_in_transaction_session_timeout": idleInTxLimit,
	} {
		if params[name] == "" {
			params[name] = limit
		}
	}
	params["application_name"] = c.Name
	params["timezone"] = "UTC"
	// On a young, churning table a plan chosen from stale statistics is a cliff.
	params["plan_cache_mode"] = "auto"
	if c.Role != "" {
		params["role"] = c.Role
	}
}

// check reaches the server, and refuses a role to which row-level security does
// not apply: the second net would be missing without a sign.
func check(ctx context.Context, pool *pgxpool.Pool, cfg Config) error {
	var bypass bool
	err := pool.QueryRow(ctx, "SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user").Scan(&bypass)
	if err != nil {
		return unreachable(cfg.URL, err)
	}
	if cfg.Role != "" && bypass {
		return fmt.Errorf("role %s bypasses row-level security: ALTER ROLE %s NOSUPERUSER NOBYPASSRLS", cfg.Role, cfg.Role)
	}
	return nil
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
	reason := strings.Join(strings.Fields(err.Error()), " ")
	if i := strings.LastIndex(reason, ": "); i >= 0 {
		reason = reason[i+2:]
	}
	return fmt.Errorf("cannot reach %s: %s (check DATABASE_URL)", where, reason)
}

// Pool is the pool itself, for statements that need no tenant.
func (db *DB) Pool() *pgxpool.Pool { return db.pool }

// Now is the current time as PostgreSQL stores it: UTC, in microseconds.
func (db *DB) Now() time.Time { return db.clock.Now().UTC().Truncate(time.Microsecond) }

// Close closes every connection; it waits for those in use.
func (db *DB) Close() { db.pool.Close() }
