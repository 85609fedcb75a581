package mongodb_test

import (
	"context"
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.mongodb.org/mongo-driver/v2/mongo"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/mongodb"
	"github.com/turumba/turumba/kit/mongodb/mongotest"
	"github.com/turumba/turumba/kit/tcp/tcptest"
)

// TestSilentServer: operations over connections that went silent end as UNAVAILABLE, in a
// context without a deadline, and soon others work again.
func TestSilentServer(t *testing.T) {
	t.Parallel()
	u, err := url.Parse(mongotest.New(t, mongotest.Servers(t)[mongotest.FerretDB]))
	require.NoError(t, err)
	p := tcptest.New(t, "tcp", u.Host)
	u.Host = p.Addr()
	db, err := mongodb.Open(t.Context(), mongodb.Config{URL: u.String(), Name: "test", Clock: clock.System()})
	require.NoError(t, err)
	t.Cleanup(db.Close)
	c, err := db.Collection(t.Context(), "notes")
	require.NoError(t, err)
	_, err = c.Insert(t.Context(), mine, []any{note{"m1", mine, "ours"}})
	require.NoError(t, err)

	require.Positive(t, p.Silence())
	began := clock.System().Now()
	for {
		_, err := mongodb.Find[note](context.Background(), c, []string{mine}, nil, mongodb.Page{})
		took := clock.System().Now().Sub(began)
		require.Less(t, took, 15*time.Second)
		if err == nil {
			t.Logf("works again after %s", took)
			return
		}
		require.True(t, apierr.HasReason(err, errorv1.Reason_REASON_UNAVAILABLE), "%v", err)
		require.NotZero(t, apierr.From(err).RetryAfter)
	}
}

// TestServersState: what a server cannot do now is UNAVAILABLE, not our fault.
func TestServersState(t *testing.T) {
	t.Parallel()
	for name, err := range map[string]error{
		"not primary":    mongo.CommandError{Code: 10107},
		"disk full":      mongo.CommandError{Code: 14031},
		"write concern":  mongo.WriteException{WriteConcernError: &mongo.WriteConcernError{Code: 64}},
		"too few":        mongo.WriteException{WriteConcernError: &mongo.WriteConcernError{Code: 100}},
		"many, no place": mongo.BulkWriteException{WriteErrors: []mongo.BulkWriteError{{WriteError: mongo.WriteError{Code: 14031}}}},
		"to be retried":  mongo.CommandError{Code: 1, Labels: []string{"RetryableWriteError"}},
	} {
		require.True(t, apierr.HasReason(mongodb.Translate(err), errorv1.Reason_REASON_UNAVAILABLE), name)
	}
	require.True(t, apierr.HasReason(mongodb.Translate(mongo.CommandError{Code: 2}), errorv1.Reason_REASON_INTERNAL))
}
