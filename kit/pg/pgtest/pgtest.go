// Package pgtest gives each test a fresh, migrated database on a real
// PostgreSQL server. The server is TEST_DATABASE_URL when that is set, else one
// that the test process starts for itself from the machine's binaries. Without
// either the test is skipped loudly, and fails where CI=true.
//
// With PGTEST=stock the server runs with the settings of its distribution instead of
// those that the embedded server is given, and a test fails where that shows nothing:
// where the server would not compile plans, or a session of ours lets it.
package pgtest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/goleak"

	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/pg/embedded"
)

// Database is a database that one test owns.
type Database struct {
	// URL connects as the server's administrator.
	URL string
}

// New makes a database with the migrations of sets, by cloning a template that
// is migrated once. It is dropped when the test ends.
func New(t testing.TB, sets ...pg.MigrationSet) *Database {
	t.Helper()
	admin := server(t)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
	defer cancel()
	template, err := templateOf(ctx, admin, sets)
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	name := "test_" + strings.ReplaceAll(uuid.NewString(), "-", "")
	if err := execute(ctx, admin, "CREATE DATABASE "+name+" TEMPLATE "+template); err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
		defer cancel()
		if err := execute(ctx, admin, "DROP DATABASE "+name+" WITH (FORCE)"); err != nil {
			t.Errorf("pgtest: %v", err)
		}
	})
	return &Database{URL: withDatabase(admin, name)}
}

// Open opens a pool that works as the role; it is closed when the test ends.
func (d *Database) Open(t testing.TB, role string) *pg.DB {
	t.Helper()
	return d.OpenAt(t, role, clock.System())
}

// OpenAt is Open with a clock of the test's own.
func (d *Database) OpenAt(t testing.TB, role string, c clock.Clock) *pg.DB {
	t.Helper()
	db, err := pg.Open(t.Context(), pg.Config{URL: d.URL, Role: role, MaxConns: 8, Clock: c, Name: "pgtest"})
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	t.Cleanup(db.Close)
	if Stock() {
		if jit, err := show(t.Context(), db, "jit"); err != nil || jit != "off" {
			t.Fatalf("pgtest: a session of ours has jit=%q (%v)", jit, err)
		}
	}
	return db
}

// Stock reports whether the server runs with the settings of its distribution.
func Stock() bool { return os.Getenv("PGTEST") == "stock" }

func show(ctx context.Context, db *pg.DB, name string) (value string, err error) {
	err = db.QueryRow(ctx, "SELECT current_setting($1)", name).Scan(&value)
	return value, err
}

// Pool opens a bare pool that works as the role, for tests that need what a pg.DB does
// not let through; it is closed when the test ends.
func (d *Database) Pool(t testing.TB, role string) *pgxpool.Pool {
	t.Helper()
	cfg, err := pgxpool.ParseConfig(d.URL)
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	if role != "" {
		cfg.ConnConfig.RuntimeParams["role"] = role
	}
	cfg.ConnConfig.RuntimeParams["jit"] = "off" // as sessions of ours
	cfg.AfterConnect = pg.RegisterTypes
	pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	t.Cleanup(pool.Close)
	return pool
}

// Goleak returns the options that leave the server's own goroutines out of a
// goroutine leak check: they end with the process.
func Goleak() []goleak.Option {
	const of = "github.com/turumba/turumba/kit/pg/embedded."
	return []goleak.Option{goleak.IgnoreAnyFunction(of + "wait"), goleak.IgnoreAnyFunction(of + "(*Server).reap")}
}

var started struct {
	sync.Once
	url string
	err error
}

// server returns the administrator's URL, starting the server on first use.
func server(t testing.TB) string {
	t.Helper()
	started.Do(func() {
		if u := os.Getenv("TEST_DATABASE_URL"); u != "" {
			started.url = u
			return
		}
		started.url, started.err = start()
	})
	if started.err == nil {
		return started.url
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("no PostgreSQL for the tests: %v", started.err)
	}
	t.Skipf("SKIP-POSTGRES: %v", started.err)
	return ""
}

// start runs a server of this process. The kernel closes the supervisor's pipe
// when the process ends, which stops it; its folder is removed by a later run.
func start() (string, error) {
	root := filepath.Join(os.TempDir(), "turumba-pgtest-"+strconv.Itoa(os.Getuid()))
	// The server of root may run as another user, who has to pass through.
	if err := os.Mkdir(root, 0o711); err != nil && !os.IsExist(err) {
		return "", err
	}
	removeStale(root)
	options := embedded.Options{
		DataDir: filepath.Join(root, strconv.Itoa(os.Getpid())), Clock: clock.System(), Stock: Stock(),
		// Tests crash their own servers, never this one; and many run at a time.
		Settings: []string{"fsync=off", "full_page_writes=off", "shared_buffers=128MB", "max_connections=300"},
	}
	s, err := embedded.Start(context.Background(), options)
	if err != nil {
		return "", err
	}
	url := s.URL("postgres")
	if Stock() {
		return url, compiles(url)
	}
	return url, nil
}

// compiles fails unless the server would compile plans of sessions that let it.
func compiles(url string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }() // nothing is pending on it
	var available bool
	var jit string
	if err := conn.QueryRow(ctx, "SELECT pg_jit_available(), current_setting('jit')").Scan(&available, &jit); err != nil {
		return err
	}
	if !available || jit != "on" {
		return fmt.Errorf("PGTEST=stock needs a server that compiles plans: pg_jit_available() is %t, jit is %s", available, jit)
	}
	return nil
}

// removeStale removes the folders of processes that are gone.
func removeStale(root string) {
	entries, err := os.ReadDir(root)
	if err != nil {
		return // nothing was left
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || syscall.Kill(pid, 0) == nil {
			continue
		}
		if _, err := os.Stat(filepath.Join(root, e.Name(), "postgres", "postmaster.pid")); err == nil {
			continue // still stopping; the next run removes it
		}
		_ = os.RemoveAll(filepath.Join(root, e.Name())) // leftovers only cost space
	}
}

var templates sync.Mutex

// templateOf returns the database with the migrations of sets, made once for
// each content of their files. Another process may share the server, so a lock
// of the server guards it too.
func templateOf(ctx context.Context, admin string, sets []pg.MigrationSet) (string, error) {
	name, err := templateName(sets)
	if err != nil {
		return "", err
	}
	templates.Lock()
	defer templates.Unlock()
	conn, err := pgx.Connect(ctx, admin)
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close(ctx) }() // its end frees the lock
	if _, err := conn.Exec(ctx, "SELECT pg_advisory_lock(7319002)"); err != nil {
		return "", err
	}
	var exists bool
	if err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", name).Scan(&exists); err != nil {
		return "", err
	}
	if exists {
		return name, nil
	}
	for _, stmt := range []string{"DROP DATABASE IF EXISTS " + name + "_new WITH (FORCE)", "CREATE DATABASE " + name + "_new"} {
		if _, err := conn.Exec(ctx, stmt); err != nil { // a killed run may have left one
			return "", err
		}
	}
	if err := pg.Migrate(ctx, withDatabase(admin, name+"_new"), sets...); err != nil {
		return "", err
	}
	_, err = conn.Exec(ctx, "ALTER DATABASE "+name+"_new RENAME TO "+name)
	return name, err
}

func templateName(sets []pg.MigrationSet) (string, error) {
	h := sha256.New()
	for _, set := range sets {
		fmt.Fprintf(h, "set %s\n", set.Name)
		err := fs.WalkDir(set.FS, ".", func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			b, err := fs.ReadFile(set.FS, path)
			fmt.Fprintf(h, "%s %d\n%s", path, len(b), b)
			return err
		})
		if err != nil {
			return "", err
		}
	}
	return "template_" + hex.EncodeToString(h.Sum(nil)[:10]), nil
}

func execute(ctx context.Context, rawURL, sql string) error {
	conn, err := pgx.Connect(ctx, rawURL)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }() // nothing is pending on it
	_, err = conn.Exec(ctx, sql)
	return err
}

func withDatabase(rawURL, name string) string {
	u, err := url.Parse(rawURL)
	if err != nil {
		return rawURL // it was connected to before
	}
	u.Path = "/" + name
	return u.String()
}
