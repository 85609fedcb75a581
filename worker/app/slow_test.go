package app_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/telemetry"
	"github.com/turumba/turumba/kit/vault"
	"github.com/turumba/turumba/services/messaging"
	"github.com/turumba/turumba/services/messaging/channel"
	"github.com/turumba/turumba/services/messaging/postgres"
	"github.com/turumba/turumba/worker/app"
	"github.com/turumba/turumba/worker/dispatch"
)

// dispatcher runs the dispatch role alone, beside a worker with the other roles; calls are
// silent after so long.
func (w *world) dispatcher(silent time.Duration) {
	w.t.Helper()
	w.dispatcherOver(silent, w.work, nil)
}

// dispatcherOver is dispatcher over these stores.
func (w *world) dispatcherOver(silent time.Duration, store, urgent *postgres.Store) {
	w.t.Helper()
	v, err := vault.New(masterKey)
	require.NoError(w.t, err)
	role := dispatch.New(dispatch.Config{
		Store: store, Urgent: urgent, Vault: v, Adapters: channel.Adapters{w.provider}, Clock: clock.System(), Logger: telemetry.Discard(), SilentAfter: silent,
	})
	ctx, cancel := context.WithCancel(context.WithoutCancel(w.t.Context()))
	var running sync.WaitGroup
	running.Go(func() { _ = role.Run(ctx) })
	w.t.Cleanup(func() {
		if w.answer != nil {
			w.answer()
		}
		cancel()
		running.Wait()
	})
	w.start(app.RoleFanout, app.RoleUpkeep, app.RoleRelay)
}

// tenant is another account with channels of its own.
func (w *world) tenant(channels int, connections int32) []*messaging.Channel {
	w.t.Helper()
	account, first := w.account, w.channel
	defer func() { w.account, w.channel = account, first }()
	w.account = messaging.NewID()
	w.setUpAccount()
	w.connections(connections)
	list := []*messaging.Channel{w.reread(w.channel)}
	for range channels - 1 {
		list = append(list, w.another(0))
	}
	return list
}

// silence lets the provider of some channels take what it is given and never answer, until
// the test ends.
func (w *world) silence() (silent *sync.Map) {
	silent, ends := &sync.Map{}, make(chan struct{})
	w.provider.set(func(m channel.Message) channel.Result {
		if _, is := silent.Load(m.ChannelID); is {
			<-ends
		}
		return accepted(m)
	})
	w.answer = sync.OnceFunc(func() { close(ends) })
	return silent
}

// singles stores n messages of the channel's account.
func (w *world) singles(c *messaging.Channel, n int) {
	w.t.Helper()
	account := w.account
	defer func() { w.account = account }()
	w.account = c.AccountID
	for i := range n {
		w.create(w.single(fmt.Sprintf("p%d@example.org", i), func(m *messaging.Message) { m.ChannelID = c.ID }))
	}
}

// TestSilentChannelsHoldNobody: many channels of a few accounts take messages and never
// answer; another account's messages go out meanwhile, those of a channel that is new too.
func TestSilentChannelsHoldNobody(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	silent := w.silence()
	for range 5 {
		for _, c := range w.tenant(20, 4) {
			silent.Store(c.ID, true)
			w.singles(c, 5)
		}
	}
	w.dispatcher(0)
	require.Eventually(t, func() bool { n, _ := w.provider.received(); return n > 0 }, patience, time.Millisecond)
	var slowest time.Duration
	for i := range 20 {
		if i%5 == 0 {
			w.channel = w.another(int32(i))
		}
		began := clock.System().Now()
		m := w.single("a@example.org")
		w.create(m)
		require.Eventually(t, func() bool { return w.message(m.ID).Status == messaging.MessageSent }, patience, 5*time.Millisecond)
		slowest = max(slowest, clock.System().Now().Sub(began))
	}
	t.Logf("at most %s", slowest)
	require.Less(t, slowest, 10*time.Second, "the machine may be busy")
	require.Zero(t, w.count("SELECT count(*) FROM messages WHERE status = 'permanently_failed'"), "no outcome is called unknown")
	w.check()
}

// pool is a store of the worker over connections of its own; taken is how many times one
// was taken.
func (w *world) pool(conns int32) (store *postgres.Store, db *pg.DB, taken func() float64) {
	w.t.Helper()
	db, err := pg.Open(w.t.Context(), pg.Config{URL: w.url, Role: pg.RoleWorker, Name: "test", MaxConns: conns})
	require.NoError(w.t, err)
	w.t.Cleanup(db.Close)
	store, err = postgres.New(db, make([]byte, 32), func() {})
	require.NoError(w.t, err)
	registry := prometheus.NewRegistry()
	registry.MustRegister(pg.Collector("test", db))
	return store, db, func() float64 {
		families, err := registry.Gather()
		require.NoError(w.t, err)
		for _, f := range families {
			if f.GetName() == "turumba_db_acquires_total" {
				return f.GetMetric()[0].GetCounter().GetValue()
			}
		}
		require.Fail(w.t, "nothing is counted")
		return 0
	}
}

// TestSilentCallsCostNoStatements: a call that is open and has no answer has its lease
// extended, with all others' in one statement, and asks the database for nothing else.
func TestSilentCallsCostNoStatements(t *testing.T) {
	t.Parallel()
	const channels = 30
	w := newWorld(t)
	silent := w.silence()
	for _, c := range w.tenant(channels, 4) {
		silent.Store(c.ID, true)
		w.singles(c, 1)
	}
	usual, _, taken := w.pool(4)
	urgent, _, takenUrgent := w.pool(4)
	w.dispatcherOver(0, usual, urgent)
	called := func() bool {
		at, _ := w.provider.called()
		return len(at) == channels
	}
	require.Eventually(t, called, patience, 20*time.Millisecond, "all calls are open")
	before, began := taken()+takenUrgent(), clock.System().Now()
	extended := func() bool { return clock.System().Now().Sub(began) > 4*time.Second }
	require.Eventually(t, extended, patience, 50*time.Millisecond)
	seconds := clock.System().Now().Sub(began).Seconds()
	// Each lane asks for work once a second, the leases are extended each three seconds.
	rate := (taken() + takenUrgent() - before) / seconds
	t.Logf("%.1f connections taken each second", rate)
	require.Less(t, rate, 10.0)
	require.Zero(t, w.count("SELECT count(*) FROM dispatch_chunks WHERE state = 'leased' AND lease_until < now()"), "leases are kept")
}

// TestSinglesHaveConnectionsOfTheirOwn: others' work has taken all connections of the pool
// that it shares; a single message is claimed, sent and stored all the same.
func TestSinglesHaveConnectionsOfTheirOwn(t *testing.T) {
	t.Parallel()
	const conns = 2
	w := newWorld(t)
	usual, db, _ := w.pool(conns)
	urgent, _, _ := w.pool(conns)
	w.dispatcherOver(0, usual, urgent)
	var busy, begun sync.WaitGroup
	free := make(chan struct{})
	defer busy.Wait()
	defer close(free)
	for range conns {
		begun.Add(1)
		busy.Go(func() {
			_ = db.InTx(context.WithoutCancel(t.Context()), nil, func(*pg.Tx) error {
				begun.Done()
				<-free
				return nil
			})
		})
	}
	begun.Wait()
	m := w.single("a@example.org")
	w.create(m)
	require.Eventually(t, func() bool { return w.message(m.ID).Status == messaging.MessageSent }, 5*time.Second, 5*time.Millisecond, "while the pool is in use")
}

// TestSilentCallIsAwaited: a call without an answer lets its channel rest, which is tried
// by one message; the rest of the send goes on when that is answered, and what the provider
// says late is taken in.
func TestSilentCallIsAwaited(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.people(300, nil)
	w.connections(8)
	var calls atomic.Int64
	ends := make(chan struct{})
	w.provider.set(func(m channel.Message) channel.Result {
		if calls.Add(1) <= 6 {
			<-ends
		}
		return accepted(m)
	})
	w.answer = sync.OnceFunc(func() { close(ends) })
	id := w.queue()
	w.dispatcher(time.Second)
	w.until(id, "all others are sent", func(g *messaging.GroupMessage) bool { return g.Sent == 294 })
	require.Equal(t, 6, w.count("SELECT count(*) FROM messages WHERE status = 'queued'"), "nothing is called unknown")
	c := w.reread(w.channel)
	require.Nil(t, c.CircuitUntil, "the channel works")
	w.answer()
	g := w.final(id)
	require.EqualValues(t, 300, g.Sent)
	_, again := w.provider.received()
	require.Zero(t, again)
	require.Zero(t, w.count("SELECT count(*) FROM message_attempts"))
}

// TestCancelBesideHangingCalls: a send that is cancelled while calls hang is settled, but
// for those.
func TestCancelBesideHangingCalls(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.people(500, nil)
	w.connections(4)
	silent := w.silence()
	silent.Store(w.channel.ID, true)
	id := w.queue()
	w.dispatcher(0)
	require.Eventually(t, func() bool { n, _ := w.provider.received(); return n == 4 }, patience, time.Millisecond)
	w.cancel(id)
	w.until(id, "all but the called are cancelled", func(g *messaging.GroupMessage) bool { return g.Cancelled == 496 })
	n, _ := w.provider.received()
	require.Equal(t, 4, n, "no further call")
	require.EqualValues(t, 4, w.group(id).Pending)
	w.answer()
	w.until(id, "the called ones end", func(g *messaging.GroupMessage) bool { return g.Sent == 4 })
	w.check()
}

// TestWindowsOfSlowProviders: a provider that takes its time gets as many calls as there
// are connections, all the time, whichever lane is alone, and no more messages are marked
// than twice as many.
func TestWindowsOfSlowProviders(t *testing.T) {
	t.Parallel()
	const connections, messages = 8, 200
	group := func(w *world) { w.queue() }
	batch := func(w *world) {
		list := make([]*messaging.Message, messages)
		for i := range list {
			list[i] = w.single(fmt.Sprintf("p%d@example.org", i))
		}
		w.create(list...)
	}
	for name, c := range map[string]struct {
		begin   func(w *world)
		latency func(n int64) time.Duration
	}{
		"50 ms":              {group, func(int64) time.Duration { return 50 * time.Millisecond }},
		"300 ms":             {group, func(int64) time.Duration { return 300 * time.Millisecond }},
		"300 ms, batch":      {batch, func(int64) time.Duration { return 300 * time.Millisecond }},
		"300 ms, one by one": {func(w *world) { w.singles(w.channel, messages) }, func(int64) time.Duration { return 300 * time.Millisecond }},
		"mixed": {group, func(n int64) time.Duration {
			if n%50 == 0 {
				return 1600 * time.Millisecond
			}
			return 100 * time.Millisecond
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.people(messages, nil)
			w.connections(connections)
			var n atomic.Int64
			w.provider.set(func(m channel.Message) channel.Result {
				if clock.Sleep(context.Background(), clock.System(), c.latency(n.Add(1))) != nil {
					return channel.Fail(channel.ClassTransient, "cancelled", "")
				}
				return accepted(m)
			})
			c.begin(w)
			w.dispatcher(0)
			marked := 0
			require.Eventually(t, func() bool {
				marked = max(marked, w.count(`SELECT count(*) FROM messages m JOIN dispatch_chunks d ON d.id = m.chunk_id
					WHERE m.status = 'queued' AND m.ordinal < d.calling_upto`))
				return w.countStatus(messaging.MessageSent) == messages
			}, patience, 5*time.Millisecond)
			require.LessOrEqual(t, marked, 2*connections)
			_, most := w.provider.called()
			require.Equal(t, connections, most)
			w.check()
		})
	}
}
