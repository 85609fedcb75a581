package pg_test

import (
	"context"
	"net/url"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/pg/pgtest"
	"github.com/turumba/turumba/kit/tcp/tcptest"
)

// behind opens a database through a proxy.
func behind(t *testing.T, conns int32) (*pg.DB, *tcptest.Proxy) {
	t.Helper()
	d := pgtest.New(t, things)
	u, err := url.Parse(d.URL)
	require.NoError(t, err)
	p := tcptest.New(t, "unix", u.Query().Get("host")+"/.s.PGSQL.5432")
	if u.Host != "" {
		p = tcptest.New(t, "tcp", u.Host)
	}
	q := u.Query()
	q.Del("host")
	u.Host, u.RawQuery = p.Addr(), q.Encode()
	db, err := pg.Open(t.Context(), pg.Config{URL: u.String(), Role: pg.RoleAPI, MaxConns: conns})
	require.NoError(t, err)
	t.Cleanup(db.Close)
	return db, p
}

// fill opens n connections and leaves them idle.
func fill(t *testing.T, db *pg.DB, n int) {
	t.Helper()
	entered, leave, left := make(chan struct{}), make(chan struct{}), make(chan error)
	for range n {
		go func() {
			left <- db.InTx(t.Context(), nil, func(*pg.Tx) error {
				entered <- struct{}{}
				<-leave
				return nil
			})
		}()
	}
	for range n {
		<-entered
	}
	close(leave)
	for range n {
		require.NoError(t, <-left)
	}
}

func took(began time.Time) time.Duration { return clock.System().Now().Sub(began) }

func unavailable(err error) bool { return apierr.HasReason(err, errorv1.Reason_REASON_UNAVAILABLE) }

// TestSilentIdle: idle connections that went silent cost one ping together, not a deadline
// each.
func TestSilentIdle(t *testing.T) {
	t.Parallel()
	db, p := behind(t, 8)
	fill(t, db, 8)
	require.NoError(t, clock.Sleep(t.Context(), clock.System(), 1100*time.Millisecond)) // since then they are not trusted
	require.Equal(t, 8, p.Silence())
	began := clock.System().Now()
	for range 20 {
		_, err := db.Exec(t.Context(), "SELECT 1")
		require.NoError(t, err)
	}
	require.Less(t, took(began), 9*time.Second, "8 connections, 2 s each one after the other, are 16 s")
}

// TestSilentIdleEndsWithItsCaller: who has less time than the ping takes waits no longer for
// it, so that a call ends with its deadline whatever the pool holds.
func TestSilentIdleEndsWithItsCaller(t *testing.T) {
	t.Parallel()
	db, p := behind(t, 2)
	fill(t, db, 2)
	require.NoError(t, clock.Sleep(t.Context(), clock.System(), 1100*time.Millisecond)) // since then they are not trusted
	require.Equal(t, 2, p.Silence())
	began := clock.System().Now()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, err := db.Exec(ctx, "SELECT 1")
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.Less(t, took(began), 1500*time.Millisecond, "the ping alone would take 2 s")
}

// TestSilentInUse: whatever is in use when the connections go silent ends by our deadline as
// UNAVAILABLE, in a context without one, and all places of the pool are free again at once.
func TestSilentInUse(t *testing.T) {
	t.Parallel()
	const each = 8
	db, p := behind(t, each)
	entered, silent, ends := make(chan struct{}), make(chan struct{}), make(chan error)
	for i := range each {
		go func() {
			ends <- db.InTx(context.Background(), nil, func(tx *pg.Tx) error {
				entered <- struct{}{}
				<-silent
				return useOne(i, tx)
			})
		}()
	}
	for range each {
		<-entered
	}
	began := clock.System().Now()
	require.Equal(t, each, p.Silence())
	close(silent)
	for range each {
		err := <-ends
		require.True(t, unavailable(err), "%v", err)
		require.NotZero(t, apierr.From(err).RetryAfter)
	}
	fill(t, db, each)
	require.Less(t, took(began), pg.Limit+4*time.Second)
}

// useOne runs statements of each kind.
func useOne(i int, tx *pg.Tx) error {
	ctx := context.Background()
	var err error
	switch i % 4 {
	case 0:
		_, err = tx.Exec(ctx, "SELECT 1")
	case 1:
		err = tx.QueryRow(ctx, "SELECT 1").Scan(new(int))
	case 2:
		b := &pgx.Batch{}
		b.Queue("SELECT 1")
		err = tx.SendBatch(ctx, b).Close()
	case 3:
		point, perr := tx.Begin(ctx)
		if perr != nil {
			return perr
		}
		_, err = point.Exec(ctx, "SELECT 1")
	}
	return err
}

// TestSilentListener: a listener whose server went silent ends, so that it can listen again.
func TestSilentListener(t *testing.T) {
	t.Parallel()
	db, p := behind(t, 2)
	heard, ended := make(chan struct{}, 1), make(chan error)
	go func() { ended <- db.Listen(t.Context(), "things", func() { heard <- struct{}{} }) }()
	<-heard
	p.Silence()
	began := clock.System().Now()
	require.Error(t, <-ended)
	require.Less(t, took(began), 15*time.Second)
}
