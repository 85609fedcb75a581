package mongotest_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/turumba/turumba/kit/mongodb/mongotest"
)

// TestWhatServersCannotDo tries what MongoDB can do and prints what each server
// cannot, by name. What we rely on must be there.
func TestWhatServersCannotDo(t *testing.T) {
	t.Parallel()
	for name, server := range mongotest.Servers(t) {
		client, err := mongo.Connect(options.Client().ApplyURI(mongotest.New(t, server)))
		require.NoError(t, err)
		t.Cleanup(func() { _ = client.Disconnect(context.WithoutCancel(t.Context())) })
		db := client.Database("capabilities_" + strings.ReplaceAll(strings.ToLower(t.Name()), "/", "_"))
		t.Cleanup(func() { _ = db.Drop(context.WithoutCancel(t.Context())) })
		var cannot []string
		for what, try := range capabilities() {
			if err := try(t.Context(), db); err != nil {
				t.Logf("%s, %s: %v", name, what, err)
				cannot = append(cannot, what)
			}
		}
		slices.Sort(cannot)
		fmt.Fprintf(os.Stdout, "%s cannot do: %s\n", name, strings.Join(cannot, ", "))
		for _, needed := range []string{"unique indexes", "case-insensitive regular expressions", "unordered inserts", "array updates", "unwind and group"} {
			require.NotContains(t, cannot, needed)
		}
	}
}

type capability func(ctx context.Context, db *mongo.Database) error

func capabilities() map[string]capability {
	return map[string]capability{
		"unique indexes":                          uniqueIndexes,
		"a missing value as a duplicate":          missingIsDuplicate,
		"code 11000 for a duplicate in an update": duplicateInUpdate,
		"partial indexes":                         partialIndexes,
		"multi-document transactions":             transactions,
		"atomic conditional updates":              conditionalUpdates,
		"case-insensitive regular expressions":    regularExpressions,
		"unordered inserts":                       unorderedInserts,
		"array updates":                           arrayUpdates,
		"unwind and group":                        unwindAndGroup,
	}
}

func unique(ctx context.Context, c *mongo.Collection, field string) error {
	_, err := c.Indexes().CreateOne(ctx, mongo.IndexModel{Keys: bson.D{{Key: field, Value: 1}}, Options: options.Index().SetUnique(true)})
	return err
}

func uniqueIndexes(ctx context.Context, db *mongo.Database) error {
	c := db.Collection("unique")
	if err := unique(ctx, c, "a"); err != nil {
		return err
	}
	if _, err := c.InsertOne(ctx, bson.D{{Key: "a", Value: "x"}}); err != nil {
		return err
	}
	if _, err := c.InsertOne(ctx, bson.D{{Key: "a", Value: "x"}}); !mongo.IsDuplicateKeyError(err) {
		return fmt.Errorf("a duplicate answers: %w", err)
	}
	return nil
}

func missingIsDuplicate(ctx context.Context, db *mongo.Database) error {
	c := db.Collection("missing")
	if err := unique(ctx, c, "a"); err != nil {
		return err
	}
	if _, err := c.InsertOne(ctx, bson.D{{Key: "b", Value: 1}}); err != nil {
		return err
	}
	if _, err := c.InsertOne(ctx, bson.D{{Key: "b", Value: 2}}); !mongo.IsDuplicateKeyError(err) {
		return errors.Join(errors.New("a second document without the value is stored"), err)
	}
	return nil
}

func duplicateInUpdate(ctx context.Context, db *mongo.Database) error {
	c := db.Collection("duplicate_update")
	if err := unique(ctx, c, "a"); err != nil {
		return err
	}
	if _, err := c.InsertMany(ctx, []any{bson.D{{Key: "a", Value: "x"}}, bson.D{{Key: "a", Value: "y"}}}); err != nil {
		return err
	}
	_, err := c.UpdateMany(ctx, bson.D{{Key: "a", Value: "y"}}, bson.D{{Key: "$set", Value: bson.D{{Key: "a", Value: "x"}}}})
	if !mongo.IsDuplicateKeyError(err) {
		return fmt.Errorf("a duplicate answers: %w", err)
	}
	return nil
}

func partialIndexes(ctx context.Context, db *mongo.Database) error {
	_, err := db.Collection("partial").Indexes().CreateOne(ctx, mongo.IndexModel{
		Keys:    bson.D{{Key: "a", Value: 1}},
		Options: options.Index().SetUnique(true).SetPartialFilterExpression(bson.D{{Key: "a", Value: bson.D{{Key: "$type", Value: "string"}}}}),
	})
	return err
}

func transactions(ctx context.Context, db *mongo.Database) error {
	session, err := db.Client().StartSession()
	if err != nil {
		return err
	}
	defer session.EndSession(ctx)
	_, err = session.WithTransaction(ctx, func(ctx context.Context) (any, error) {
		return db.Collection("transactions").InsertOne(ctx, bson.D{{Key: "a", Value: 1}})
	})
	return err
}

// conditionalUpdates lets eight writers each take the same version, fifty times.
func conditionalUpdates(ctx context.Context, db *mongo.Database) error {
	c := db.Collection("conditional")
	if _, err := c.InsertOne(ctx, bson.D{{Key: "_id", Value: "x"}, {Key: "version", Value: int64(0)}}); err != nil {
		return err
	}
	for version := range int64(50) {
		var took atomic.Int64
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				res, err := c.UpdateMany(ctx, bson.D{{Key: "_id", Value: "x"}, {Key: "version", Value: version}}, bson.D{{Key: "$set", Value: bson.D{{Key: "version", Value: version + 1}}}})
				if err == nil {
					took.Add(res.MatchedCount)
				}
			})
		}
		all.Wait()
		if took.Load() != 1 {
			return fmt.Errorf("%d writers took version %d", took.Load(), version)
		}
	}
	return nil
}

func regularExpressions(ctx context.Context, db *mongo.Database) error {
	c := db.Collection("regex")
	if _, err := c.InsertOne(ctx, bson.D{{Key: "a", Value: "Abebe"}}); err != nil {
		return err
	}
	n, err := c.CountDocuments(ctx, bson.D{{Key: "a", Value: bson.D{{Key: "$regex", Value: `^ABE.*\z`}, {Key: "$options", Value: "is"}}}})
	if err == nil && n != 1 {
		err = fmt.Errorf("found %d", n)
	}
	return err
}

func unorderedInserts(ctx context.Context, db *mongo.Database) error {
	c := db.Collection("unordered")
	_, err := c.InsertMany(ctx, []any{bson.D{{Key: "_id", Value: "a"}}, bson.D{{Key: "_id", Value: "a"}}, bson.D{{Key: "_id", Value: "b"}}}, options.InsertMany().SetOrdered(false))
	if !mongo.IsDuplicateKeyError(err) {
		return fmt.Errorf("a duplicate answers: %w", err)
	}
	n, err := c.CountDocuments(ctx, bson.D{})
	if err == nil && n != 2 {
		err = fmt.Errorf("%d were stored", n)
	}
	return err
}

func arrayUpdates(ctx context.Context, db *mongo.Database) error {
	c := db.Collection("arrays")
	if _, err := c.InsertOne(ctx, bson.D{{Key: "a", Value: bson.A{"x"}}}); err != nil {
		return err
	}
	for _, u := range []bson.D{{{Key: "$addToSet", Value: bson.D{{Key: "a", Value: "y"}}}}, {{Key: "$addToSet", Value: bson.D{{Key: "a", Value: "y"}}}}, {{Key: "$pull", Value: bson.D{{Key: "a", Value: "x"}}}}} {
		if _, err := c.UpdateMany(ctx, bson.D{}, u); err != nil {
			return err
		}
	}
	n, err := c.CountDocuments(ctx, bson.D{{Key: "a", Value: bson.A{"y"}}})
	if err == nil && n != 1 {
		err = fmt.Errorf("found %d", n)
	}
	return err
}

func unwindAndGroup(ctx context.Context, db *mongo.Database) error {
	c := db.Collection("unwind")
	if _, err := c.InsertMany(ctx, []any{bson.D{{Key: "a", Value: bson.A{"x", "y"}}}, bson.D{{Key: "a", Value: bson.A{"x"}}}}); err != nil {
		return err
	}
	cursor, err := c.Aggregate(ctx, bson.A{
		bson.D{{Key: "$unwind", Value: "$a"}},
		bson.D{{Key: "$match", Value: bson.D{{Key: "a", Value: "x"}}}},
		bson.D{{Key: "$group", Value: bson.D{{Key: "_id", Value: "$a"}, {Key: "n", Value: bson.D{{Key: "$sum", Value: 1}}}}}},
	})
	if err != nil {
		return err
	}
	var out []struct {
		N int32 `bson:"n"`
	}
	if err := cursor.All(ctx, &out); err != nil {
		return err
	}
	if len(out) != 1 || out[0].N != 2 {
		return fmt.Errorf("counted %v", out)
	}
	return nil
}
