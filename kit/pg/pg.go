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
	"github.com/turumba/turumba/kit/tcp"
	"github.com/turumba/turumba/kit/vault"
)

// The roles of the product. The owner migrates and cannot log in; the other two
// are reached by SET ROLE or as logins, and never bypass row-level security.
const (
	RoleOwner  = "turumba_owner"
	RoleAPI    = "turumba_api"
	RoleWorker = "turumba_worker"
)

// startLimit is how long a start waits for a server that does not answer.
const startLimit = 10 * time.Second

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
	// Vault seals answers with secrets that are kept for idempotency keys; without it such
	// an answer is refused.
	Vault *vault.Vault
}

// DB is a pool of connections that work as one role.
type DB struct {
	pool     *pgxpool.Pool
	clock    clock.Clock
	vault    *vault.Vault
	settings []Setting // of every transaction and statement, beside those of the session
	wakes    *wakes    // shared with derived handles
	limit    time.Duration
	idle     *idleCheck
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
	db := &DB{clock: cfg.Clock, vault: cfg.Vault, limit: Limit, idle: &idleCheck{}, wakes: &wakes{}}
	db.idle.watch(pc, func() *pgxpool.Pool { return db.pool })
	pool, err := pgxpool.NewWithConfig(ctx, pc)
	if err != nil {
		return nil, fmt.Errorf("open the database: %w", err)
	}
	db.pool = pool
	ping, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	if err := check(ping, pool, cfg); err != nil {
		pool.Close()
		return nil, err
	}
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
	pc.ConnConfig.Tracer = c.Tracer
	dialled(pc.ConnConfig)
	params := pc.ConnConfig.RuntimeParams
	setSession(params, Limit-answerMargin)
	params["application_name"] = c.Name
	if c.Role != "" {
		params["role"] = c.Role
	}
}

// setSession sets what the product relies on, whatever the server's own configuration says
// (decision G13, ADR 0040). What the embedded server is given and is not here is of no
// concern to the product; a test holds the two lists together. limit is how long a
// statement may take. The query string of the URL may set other limits and another
// synchronous_commit.
func setSession(params map[string]string, limit time.Duration) {
	for name, value := range map[string]string{
		"statement_timeout":                   milliseconds(limit),
		"lock_timeout":                        milliseconds(lockLimit),
		"idle_in_transaction_session_timeout": milliseconds(idleInTxLimit),
		// What was answered is kept: a message that was marked before it left stays marked.
		"synchronous_commit": "on",
	} {
		if params[name] == "" {
			params[name] = value
		}
	}
	// Lists turn planner methods off, which lifts the cost of every plan over the limits
	// above which it is compiled by LLVM: two seconds of CPU for what takes 50 ms.
	params["jit"] = "off"
	// Stores count on seeing what others committed while they waited for a lock.
	params["default_transaction_isolation"] = "read committed"
	params["timezone"] = "UTC"
	// On a young, churning table a plan chosen from stale statistics is a cliff.
	params["plan_cache_mode"] = "auto"
}

// dialled lets connections be opened in time, and lost ones be noticed by the kernel.
func dialled(cc *pgx.ConnConfig) {
	cc.ConnectTimeout = tcp.ConnectLimit // with TLS and authentication
	cc.DialFunc = tcp.Dialer().DialContext
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

// Now is the current time as PostgreSQL stores it: UTC, in microseconds.
func (db *DB) Now() time.Time { return db.clock.Now().UTC().Truncate(time.Microsecond) }

// Close closes every connection, also for handles made by With; it waits for those in
// use.
func (db *DB) Close() { db.pool.Close() }
