package mongodb_test

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.uber.org/goleak"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/mongodb"
	"github.com/turumba/turumba/kit/mongodb/mongotest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type note struct {
	ID        string `bson:"_id"`
	AccountID string `bson:"account_id"`
	Text      string `bson:"text"`
}

const mine, theirs = "0190a5c8-0000-7000-8000-000000000001", "0190a5c8-0000-7000-8000-000000000002"

func open(t *testing.T) *mongodb.Collection {
	t.Helper()
	db, err := mongodb.Open(t.Context(), mongodb.Config{URL: mongotest.New(t, mongotest.Servers(t)[mongotest.FerretDB]), Name: "test", Clock: clock.System()})
	require.NoError(t, err)
	t.Cleanup(db.Close)
	c, err := db.Collection(t.Context(), "notes", mongodb.Index{Fields: []string{"account_id", "text"}})
	require.NoError(t, err)
	return c
}

// TestNothingWidensTheScope hands every method a filter that means everything (S-59).
func TestNothingWidensTheScope(t *testing.T) {
	t.Parallel()
	ctx, c := t.Context(), open(t)
	_, err := c.Insert(ctx, theirs, []any{note{"t1", theirs, "secret"}, note{"t2", theirs, "secret"}})
	require.NoError(t, err)
	_, err = c.Insert(ctx, mine, []any{note{"m1", mine, "ours"}})
	require.NoError(t, err)
	for name, filter := range map[string]bson.D{
		"nothing":         nil,
		"or":              {{Key: "$or", Value: bson.A{bson.D{{Key: "account_id", Value: theirs}}, bson.D{{Key: "text", Value: "ours"}}}}},
		"their account":   {{Key: "account_id", Value: theirs}},
		"every account":   {{Key: "account_id", Value: bson.D{{Key: "$exists", Value: true}}}},
		"two accounts":    {{Key: "account_id", Value: bson.D{{Key: "$in", Value: bson.A{mine, theirs}}}}},
		"their ids":       {{Key: "_id", Value: bson.D{{Key: "$in", Value: bson.A{"t1", "t2", "m1"}}}}},
		"not our account": {{Key: "account_id", Value: bson.D{{Key: "$ne", Value: mine}}}},
	} {
		found, err := mongodb.Find[note](ctx, c, []string{mine}, filter, mongodb.Page{})
		require.NoError(t, err, name)
		for _, n := range found {
			require.Equal(t, mine, n.AccountID, name)
		}
		n, err := c.Count(ctx, []string{mine}, filter, 10)
		require.NoError(t, err, name)
		require.LessOrEqual(t, n, int64(1), name)
		grouped, err := mongodb.Aggregate[note](ctx, c, []string{mine}, filter)
		require.NoError(t, err, name)
		require.LessOrEqual(t, len(grouped), 1, name)
		_, err = c.Update(ctx, []string{mine}, filter, mongodb.Set(bson.D{{Key: "text", Value: "ours"}}))
		require.NoError(t, err, name)
		_, err = c.Delete(ctx, []string{mine}, append(bson.D{{Key: "text", Value: "secret"}}, filter...))
		require.NoError(t, err, name)
	}
	for _, scope := range [][]string{nil, {}} {
		_, err := mongodb.Find[note](ctx, c, scope, nil, mongodb.Page{})
		require.Error(t, err, "without a scope nothing is done")
		_, err = c.Update(ctx, scope, nil, mongodb.Set(bson.D{{Key: "text", Value: "x"}}))
		require.Error(t, err)
		_, err = c.Delete(ctx, scope, nil)
		require.Error(t, err)
		_, err = c.Count(ctx, scope, nil, 1)
		require.Error(t, err)
		_, err = mongodb.Aggregate[note](ctx, c, scope, nil)
		require.Error(t, err)
	}
	_, err = c.Insert(ctx, mine, []any{note{"m2", theirs, "smuggled"}})
	require.Error(t, err)
	all, err := mongodb.Find[note](ctx, c, []string{theirs}, nil, mongodb.Page{})
	require.NoError(t, err)
	require.Equal(t, []note{{"t1", theirs, "secret"}, {"t2", theirs, "secret"}}, all, "theirs is as it was")
	owners, err := c.Owners(ctx, nil, 10)
	require.NoError(t, err)
	require.Len(t, owners, 3)
}

func TestDuplicates(t *testing.T) {
	t.Parallel()
	ctx, c := t.Context(), open(t)
	taken, err := c.Insert(ctx, mine, []any{note{"a", mine, "1"}, note{"b", mine, "2"}})
	require.NoError(t, err)
	require.Empty(t, taken)
	taken, err = c.Insert(ctx, mine, []any{note{"b", mine, "3"}, note{"c", mine, "4"}, note{"a", mine, "5"}})
	require.NoError(t, err)
	require.ElementsMatch(t, []int{0, 2}, taken)
	n, err := mongodb.One[note](ctx, c, []string{mine}, mongodb.Is("_id", "$eq", "b"), errors.New("gone"))
	require.NoError(t, err)
	require.Equal(t, "2", n.Text)
	_, err = mongodb.One[note](ctx, c, []string{theirs}, mongodb.Is("_id", "$eq", "b"), apierr.NotFound("note"))
	require.True(t, apierr.HasReason(err, errorv1.Reason_REASON_NOT_FOUND))
}

func TestServerThatIsNotThere(t *testing.T) {
	t.Parallel()
	_, err := mongodb.Open(t.Context(), mongodb.Config{URL: "mongodb://user:secret@127.0.0.1:1/db?serverSelectionTimeoutMS=100", Clock: clock.System()})
	require.True(t, apierr.HasReason(err, errorv1.Reason_REASON_UNAVAILABLE), "%v", err)
	require.Equal(t, time.Second, apierr.From(err).RetryAfter)
	_, err = mongodb.Open(t.Context(), mongodb.Config{URL: "mongodb://user:secret@", Clock: clock.System()})
	require.Error(t, err)
	require.NotContains(t, err.Error(), "secret")
}
