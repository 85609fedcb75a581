package chaos_test

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/turumba/turumba/e2e/chaos/fault"
	messagingv1 "github.com/turumba/turumba/gen/turumba/messaging/v1"
	"github.com/turumba/turumba/kit/failpoint"
)

// apiRows break the way of accepted calls (catalogue F-01 to F-09).
func apiRows() []row {
	return []row{
		{"F-01", "kill the API before its commit", quick, beside, killAPI(failpoint.APIBeforeCommit, 0)},
		{"F-02", "kill the API after its commit, before the response", smoke, beside, killAPI(failpoint.APIAfterCommit, 1)},
		{"F-03", "one key many times at once", quick, beside, sameKeyAtOnce},
		{"F-04", "one key, another body", quick, beside, sameKeyOtherBody},
		{"F-05", "one key, another account", quick, beside, sameKeyOtherAccount},
		{"F-06", "connection to the database cut at COMMIT", smoke, beside, cutAtCommit},
		{"F-07", "database killed under load", quick, alone, databaseDown},
		{"F-08", "database open and silent", quick, alone, databaseSilent},
		{"F-09", "broker away from the start", full, alone, brokerNeverThere},
	}
}

// killAPI kills the messaging service in every call at the point, where rows are
// already stored, and repeats the call with its key.
func killAPI(point failpoint.Point, rows int) func(r *trial) {
	return func(r *trial) {
		x, kills, before := r.tenant(0), r.times(50), 0
		for range kills {
			key := uuid.NewString()
			r.messaging.kill()
			r.messaging.start(fp(point, 1))
			r.messagingConn.ResetConnectBackoff()
			_, err := x.create(x.withKey(key), "one")
			require.Error(r.t, err)
			require.Equal(r.t, killed, r.messaging.dies())
			require.Equal(r.t, before+rows, r.count("messages"), "rows after the kill")
			r.messaging.start()
			r.messagingConn.ResetConnectBackoff()
			_, err = x.create(x.withKey(key), "one")
			require.NoError(r.t, err)
			before++
			require.Equal(r.t, before, r.count("messages"), "rows after the repetition")
		}
		r.did("%d kills, each call repeated with its key: %d messages", kills, len(x.accepted))
	}
}

// sameKeyAtOnce makes one message by many calls with one key.
func sameKeyAtOnce(r *trial) {
	x, times := r.tenant(0), r.times(50)
	for n := range times {
		key, ids := uuid.NewString(), map[string]bool{}
		var calls sync.WaitGroup
		var mu sync.Mutex
		for range 50 {
			calls.Go(func() {
				res, err := x.call(x.withKey(key), "one")
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					ids[res.GetMessage().GetId()] = true
				} else if status.Code(err) != codes.Aborted {
					ids[err.Error()] = true
				}
			})
		}
		calls.Wait()
		require.Len(r.t, ids, 1, "answers")
		_, err := x.create(x.withKey(key), "one")
		require.NoError(r.t, err)
		require.Equal(r.t, n+1, r.count("messages"))
	}
	r.did("%d times 50 calls at once, %d messages", times, len(x.accepted))
}

func sameKeyOtherBody(r *trial) {
	x, times := r.tenant(0), r.times(50)
	for range times {
		key := uuid.NewString()
		_, err := x.create(x.withKey(key), "one")
		require.NoError(r.t, err)
		_, err = x.create(x.withKey(key), "other")
		require.Equal(r.t, codes.AlreadyExists, status.Code(err), err)
	}
	require.Equal(r.t, times, r.count("messages"))
	r.did("%d keys with two bodies each, %d messages", times, len(x.accepted))
}

func sameKeyOtherAccount(r *trial) {
	x, y, times := r.tenant(0), r.tenant(0), r.times(50)
	for range times {
		key := uuid.NewString()
		_, err := x.create(x.withKey(key), "one")
		require.NoError(r.t, err)
		_, err = y.create(y.withKey(key), "one")
		require.NoError(r.t, err)
	}
	require.Equal(r.t, 2*times, r.count("messages"))
	r.did("%d keys in two accounts each, %d messages", times, len(x.accepted)+len(y.accepted))
}

// cutAtCommit lets the commit reach the database and its answer nobody.
func cutAtCommit(r *trial) {
	x, times := r.tenant(0), r.times(50)
	for n := range times {
		key, cuts := uuid.NewString(), r.apiDB.Cuts()
		r.apiDB.CutAfter(fault.ToServer, "commit\x00")
		_, err := x.call(x.withKey(key), "one")
		require.Equal(r.t, codes.Unavailable, status.Code(err), err)
		require.Equal(r.t, cuts+1, r.apiDB.Cuts())
		require.NoError(r.t, r.apiDB.Pass())
		require.Eventually(r.t, func() bool { return r.count("messages") == n+1 }, soon, blink)
		_, err = x.create(x.withKey(key), "one")
		require.NoError(r.t, err)
		require.Equal(r.t, n+1, r.count("messages"))
	}
	r.did("%d cuts, each call repeated with its key: %d messages", times, len(x.accepted))
}

// databaseDown kills the database server while clients call: they hear so at once,
// nobody says that it is ready, and all goes on when it is back.
func databaseDown(r *trial) {
	x, times := r.tenant(0), r.times(3)-1
	var unready, back []time.Duration
	var refused []time.Duration
	for range times {
		l := x.load(4)
		l.until(20 + r.rand.IntN(20))
		r.killDatabase()
		unready = append(unready, r.within(5*time.Second, "nobody is ready", func() bool { return !r.isReady(r.messaging) && !r.isReady(r.worker) }))
		_, before := l.counts()
		require.Eventually(r.t, func() bool { _, n := l.counts(); return n > before+100 }, soon, blink, "calls are refused")
		r.reviveDatabase()
		back = append(back, r.within(10*time.Second, "all are ready", func() bool { return r.isReady(r.messaging) && r.isReady(r.worker) }))
		l.until(20)
		l.stop()
		require.NotEmpty(r.t, l.refused)
		for _, err := range l.errs {
			require.Equal(r.t, codes.Unavailable, status.Code(err), err)
		}
		refused = append(refused, l.refused...)
	}
	require.LessOrEqual(r.t, slices.Max(refused), 2*time.Second, "the slowest refusal")
	// What was on its way to the provider has no outcome stored until its lease is over.
	r.may.Window = times * inFlight
	r.did("%d kills, %d messages, %d calls refused within %s, not ready after %s, ready again after %s", times, len(x.accepted), len(refused), slices.Max(refused), slices.Max(unready), slices.Max(back))
}

// databaseSilent lets connections to the database stay open and carry nothing: calls
// end with their deadline, in the service too, and leave the pool usable.
func databaseSilent(r *trial) {
	const deadline, grace, at = time.Second, 250 * time.Millisecond, 64
	x, times := r.tenant(0), r.times(15)
	x.messages(1)
	ended := func() float64 { return r.metric(r.messaging, "turumba_rpc_duration_seconds_count", "CreateMessage") }
	var keys []string
	var late time.Duration
	r.apiDB.Stall()
	for range times {
		before := ended()
		var calls sync.WaitGroup
		var answered atomic.Int64
		for range at {
			key := uuid.NewString()
			keys = append(keys, key)
			calls.Go(func() {
				ctx, cancel := context.WithTimeout(x.withKey(key), deadline)
				defer cancel()
				if _, err := x.call(ctx, "one"); err == nil {
					answered.Add(1)
				}
			})
		}
		calls.Wait()
		require.Zero(r.t, answered.Load(), "calls answered without a database")
		late = max(late, r.within(grace+busy, "the service has ended them too", func() bool { return ended() >= before+at }))
	}
	require.NoError(r.t, r.apiDB.Pass())
	var calls sync.WaitGroup
	var failed atomic.Int64
	for _, key := range keys {
		calls.Go(func() {
			ctx, cancel := context.WithTimeout(x.withKey(key), callLimit)
			defer cancel()
			if _, err := x.create(ctx, "one"); err != nil {
				failed.Add(1)
			}
		})
	}
	calls.Wait()
	require.Zero(r.t, failed.Load(), "calls that failed with the database back")
	r.did("%d calls of %s in silence, ended in the service at most %s later; all repeated: %d messages", len(keys), deadline, late, len(x.accepted))
}

// busy is what a machine with other work may add to a time that is measured.
const busy = 500 * time.Millisecond

// brokerNeverThere starts the worker without a broker: calls are accepted as before,
// messages are sent by the poll, and the outbox empties when the broker comes.
func brokerNeverThere(r *trial) {
	x, calls := r.tenant(0), r.times(500)
	measure := func() time.Duration {
		l := x.load(2)
		l.until(calls)
		l.stop()
		require.Empty(r.t, l.errs)
		return part(l.took, 0.99)
	}
	measure() // warms up
	with := measure()
	r.worker.kill()
	r.amqp.Refuse()
	r.amqp.Reset()
	r.worker.launch()
	without := measure()
	require.True(r.t, r.isReady(r.messaging), "the API is ready")
	require.False(r.t, r.isReady(r.worker), "the worker says that its broker is away")
	r.eventually("all are sent by the poll", "SELECT count(*) = 0 FROM messages WHERE status NOT IN ('sent', 'permanently_failed')")
	r.may.Window = inFlight // of the worker that was killed
	var waiting int
	require.NoError(r.t, r.sql.QueryRow(r.t.Context(), "SELECT count(*) FROM outbox_events WHERE published_at IS NULL").Scan(&waiting))
	require.GreaterOrEqual(r.t, waiting, calls, "events wait")
	require.LessOrEqual(r.t, without, with*3/2+busy/10, "p99 of accepted calls")
	r.did("%d messages, p99 %s with the broker and %s without, %d events waited", len(x.accepted), with, without, waiting)
}

// call creates a message without noting it. It waits for a service that starts, and
// is never repeated by itself once it is on its way.
func (x *tenant) call(ctx context.Context, to string) (*messagingv1.CreateMessageResponse, error) {
	return messagingv1.NewMessageServiceClient(x.messagingConn).CreateMessage(ctx, x.request(to), grpc.WaitForReady(true))
}

// count is how many rows a table has.
func (r *trial) count(table string) (n int) {
	r.t.Helper()
	require.NoError(r.t, r.sql.QueryRow(r.t.Context(), "SELECT count(*) FROM "+table).Scan(&n))
	return n
}
