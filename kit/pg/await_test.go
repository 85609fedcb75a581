package pg_test

import (
	"bytes"
	"context"
	"log/slog"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/pg/pgtest"
)

// lines is a log that a test reads while it is written.
type lines struct {
	mu  sync.Mutex
	all bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.Write(b)
}

func (l *lines) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.String()
}

// TestAwaitSchema starts before there is a database, and goes on when the last set has
// its newest version; each thing that is missing is one line.
func TestAwaitSchema(t *testing.T) {
	t.Parallel()
	file := func(sql string) *fstest.MapFile { return &fstest.MapFile{Data: []byte("-- +goose Up\n" + sql)} }
	first := pg.MigrationSet{Name: "first", FS: fstest.MapFS{"00001_a.sql": file("CREATE TABLE a (id int);")}}
	old := pg.MigrationSet{Name: "second", FS: fstest.MapFS{"00001_b.sql": file("CREATE TABLE b (id int);")}}
	second := pg.MigrationSet{Name: "second", FS: fstest.MapFS{"00001_b.sql": file("CREATE TABLE b (id int);"), "00010_c.sql": file("CREATE TABLE c (id int);")}}
	d := pgtest.New(t)
	u, err := url.Parse(d.URL)
	require.NoError(t, err)
	name := u.Path[1:]
	u.Path = "/postgres"
	admin, err := pgx.Connect(t.Context(), u.String())
	require.NoError(t, err)
	defer func() { _ = admin.Close(context.WithoutCancel(t.Context())) }() // nothing is pending on it
	_, err = admin.Exec(t.Context(), "DROP DATABASE "+name)
	require.NoError(t, err)
	var log lines
	done := make(chan error, 1)
	go func() {
		done <- pg.AwaitSchema(t.Context(), d.URL, clock.System(), slog.New(slog.NewTextHandler(&log, nil)), first, second)
	}()
	waits := func(missing string) {
		t.Helper()
		require.Eventually(t, func() bool { return strings.Contains(log.text(), missing) }, time.Minute, 10*time.Millisecond)
		require.Empty(t, done)
	}
	waits("missing=database")
	require.NoError(t, pg.EnsureDatabase(t.Context(), d.URL))
	waits(`"version 1 of first"`)
	require.NoError(t, pg.Migrate(t.Context(), d.URL, first))
	waits(`"version 10 of second"`)
	require.NoError(t, pg.Migrate(t.Context(), d.URL, first, old))
	require.Empty(t, done)
	require.NoError(t, pg.Migrate(t.Context(), d.URL, first, second))
	require.NoError(t, <-done)
	require.Equal(t, 3, strings.Count(log.text(), "\n"))
	require.NoError(t, pg.AwaitSchema(t.Context(), d.URL, clock.System(), slog.New(slog.DiscardHandler), first, old), "newer is fine")
	require.ErrorContains(t, pg.AwaitSchema(t.Context(), "postgres://nobody@127.0.0.1:1/x", clock.System(), slog.New(slog.DiscardHandler), first), "cannot reach")
}
