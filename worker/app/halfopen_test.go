package app_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/kit/pg/pgtest"
	"github.com/turumba/turumba/worker/app"
)

// TestHalfOpenDatabase: the database's open connections go silent under an idle worker,
// and work comes afterwards: a send is written out, a dead worker's chunk is recovered,
// and the events are published. Each loop loses a limit for each silent connection.
func TestHalfOpenDatabase(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	proxy, through := pgtest.Silence(t, w.url)
	w.url = through
	w.people(1500, nil)
	stop := w.start(app.RoleRelay, app.RoleFanout, app.RoleUpkeep)
	t.Cleanup(stop)
	t.Cleanup(proxy.Cut) // before the stop, which closes the pool
	published := func() bool { return w.count("SELECT count(*) FROM outbox_events WHERE published_at IS NULL") == 0 }
	first := w.queue()
	require.Eventually(t, func() bool { return w.group(first).FanoutDone && published() }, patience, 10*time.Millisecond)

	require.NotZero(t, proxy.Freeze())
	w.exec("UPDATE dispatch_chunks SET state = 'leased', epoch = 7, lease_until = now() - interval '1 second' WHERE id = (SELECT min(id::text)::uuid FROM dispatch_chunks)")
	second := w.queue()
	require.Eventually(t, func() bool {
		return w.group(second).FanoutDone && w.count("SELECT count(*) FROM dispatch_chunks WHERE state = 'leased'") == 0 && published()
	}, time.Minute, 50*time.Millisecond)
	require.EqualValues(t, 1500, w.group(second).Total)
	w.check()
}
