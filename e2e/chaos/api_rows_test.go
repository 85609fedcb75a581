package chaos_test

import (
	"context"
	"sync"

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
		{"F-01", "kill the API before its commit", true, killAPI(failpoint.APIBeforeCommit, 0)},
		{"F-02", "kill the API after its commit, before the response", true, killAPI(failpoint.APIAfterCommit, 1)},
		{"F-03", "one key many times at once", true, sameKeyAtOnce},
		{"F-04", "one key, another body", true, sameKeyOtherBody},
		{"F-05", "one key, another account", true, sameKeyOtherAccount},
		{"F-06", "connection to the database cut at COMMIT", true, cutAtCommit},
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
