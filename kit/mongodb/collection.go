package mongodb

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/turumba/turumba/kit/bounds"
)

// tenantField is the owning account in every document.
const tenantField = "account_id"

// duplicateKey is the server's code of a value that an index holds already.
const duplicateKey = 11000

// ErrDuplicate tells that a unique index has the value already.
var ErrDuplicate = errors.New("mongodb: duplicate value")

// Collection is a collection whose documents each belong to an account. Each operation ends
// after opLimit, with the reading of what it finds.
type Collection struct {
	db    *DB
	c     *mongo.Collection
	limit time.Duration
}

// Within returns the collection with another limit of each operation, for what is known to
// take longer; say why at the call.
func (c *Collection) Within(limit time.Duration) *Collection {
	other := *c
	other.limit = limit
	return &other
}

// tenant is the filter within the scope. It stands beside the filter and not in it,
// so nothing in the filter can widen it.
func tenant(scope []string, filter bson.D) (bson.D, error) {
	if len(scope) == 0 {
		return nil, errors.New("mongodb: the scope is empty")
	}
	owner := Is(tenantField, "$eq", scope[0])
	if len(scope) > 1 {
		owner = Is(tenantField, "$in", scope)
	}
	if len(filter) == 0 {
		return owner, nil
	}
	return append(owner, bson.E{Key: "$and", Value: bson.A{filter}}), nil
}

// Is compares the value at a path with one operator.
func Is(path, operator string, value any) bson.D {
	return bson.D{{Key: path, Value: bson.D{{Key: operator, Value: value}}}}
}

// Set is the update that sets fields.
func Set(fields bson.D) bson.D { return bson.D{{Key: "$set", Value: fields}} }

// Page is which of the documents that match are wanted, and in which order.
type Page struct {
	Sort        bson.D
	Skip, Limit int64 // a limit of 0 is none
	// Weight is the most that the documents may weigh together (bounds.Page), for who reads
	// page after page; 0 is no limit.
	Weight int64
}

// options are how a page is found, so many documents a round trip at most; 0 is all of them.
func (p Page) options(batch int64) *options.FindOptionsBuilder {
	o := options.Find().SetSkip(p.Skip).SetLimit(p.Limit)
	if len(p.Sort) > 0 {
		o.SetSort(p.Sort)
	}
	if p.Limit > 0 {
		if batch == 0 {
			batch = p.Limit + 1
		}
		o.SetBatchSize(int32(min(p.Limit+1, batch)))
	}
	return o
}

// Find returns documents of the scope.
func Find[T any](ctx context.Context, c *Collection, scope []string, filter bson.D, p Page) ([]T, error) {
	if p.Weight > 0 {
		return upto[T](ctx, c, scope, filter, p)
	}
	filter, err := tenant(scope, filter)
	if err != nil {
		return nil, err
	}
	limited, cancel := context.WithTimeout(ctx, c.limit)
	defer cancel()
	cursor, err := c.c.Find(limited, filter, p.options(0))
	if err != nil {
		return nil, c.fail(ctx, "find", err)
	}
	var out []T
	return out, c.fail(ctx, "find", cursor.All(limited, &out))
}

// upto returns documents of the scope to the last that belongs to the page.
func upto[T any](ctx context.Context, c *Collection, scope []string, filter bson.D, p Page) (out []T, err error) {
	page := bounds.NewPage(ctx, p.Weight)
	err = c.each(ctx, scope, filter, p, func(doc bson.Raw) error {
		if err := page.Add(len(doc), valuesOf(doc)); err != nil {
			return err
		}
		var v T
		if err := bson.Unmarshal(doc, &v); err != nil {
			return fmt.Errorf("read document: %w", err)
		}
		out = append(out, v)
		return nil
	})
	if errors.Is(err, bounds.ErrFull) {
		err = nil
	}
	return out, err
}

// eachBatch is how many documents that are read one by one come at once.
const eachBatch = 128

// each reads documents of the scope one by one, until use fails: then it fails with that
// error. A document is only valid until use returns.
func (c *Collection) each(ctx context.Context, scope []string, filter bson.D, p Page, use func(bson.Raw) error) error {
	filter, err := tenant(scope, filter)
	if err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, c.limit)
	defer cancel()
	cursor, err := c.c.Find(limited, filter, p.options(eachBatch))
	if err != nil {
		return c.fail(ctx, "find", err)
	}
	defer func() { _ = cursor.Close(limited) }() // what is left of it ends by itself
	for cursor.Next(limited) {
		if err := use(cursor.Current); err != nil {
			return err
		}
	}
	return c.fail(ctx, "find", cursor.Err())
}

// One returns the document of the scope that matches; notFound when there is none.
func One[T any](ctx context.Context, c *Collection, scope []string, filter bson.D, notFound error) (*T, error) {
	found, err := Find[T](ctx, c, scope, filter, Page{Limit: 1})
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return nil, notFound
	}
	return &found[0], nil
}

// Aggregate runs stages over the documents of the scope that match. No stage may read
// another collection.
func Aggregate[T any](ctx context.Context, c *Collection, scope []string, match bson.D, stages ...bson.D) ([]T, error) {
	match, err := tenant(scope, match)
	if err != nil {
		return nil, err
	}
	pipeline := append(bson.A{}, bson.D{{Key: "$match", Value: match}})
	for _, s := range stages {
		pipeline = append(pipeline, s)
	}
	limited, cancel := context.WithTimeout(ctx, c.limit)
	defer cancel()
	cursor, err := c.c.Aggregate(limited, pipeline)
	if err != nil {
		return nil, c.fail(ctx, "aggregate", err)
	}
	var out []T
	return out, c.fail(ctx, "aggregate", cursor.All(limited, &out))
}

// Count counts documents of the scope, up to most.
func (c *Collection) Count(ctx context.Context, scope []string, filter bson.D, most int64) (int64, error) {
	filter, err := tenant(scope, filter)
	if err != nil {
		return 0, err
	}
	limited, cancel := context.WithTimeout(ctx, c.limit)
	defer cancel()
	n, err := c.c.CountDocuments(limited, filter, options.Count().SetLimit(most))
	return n, c.fail(ctx, "count", err)
}

// Insert stores documents of one account and returns the places of those that an
// index refused as duplicates; the others are stored.
func (c *Collection) Insert(ctx context.Context, accountID string, docs []any) (duplicates []int, err error) {
	if len(docs) == 0 {
		return nil, nil
	}
	raws := make([]any, len(docs))
	for i, d := range docs {
		raw, err := bson.Marshal(d)
		if err != nil {
			return nil, fmt.Errorf("write document: %w", err)
		}
		if owner, ok := bson.Raw(raw).Lookup(tenantField).StringValueOK(); !ok || owner != accountID {
			return nil, errors.New("mongodb: the document is of another account")
		}
		raws[i] = bson.Raw(raw)
	}
	limited, cancel := context.WithTimeout(ctx, c.limit)
	defer cancel()
	_, err = c.c.InsertMany(limited, raws, options.InsertMany().SetOrdered(false))
	var bulk mongo.BulkWriteException
	if !errors.As(err, &bulk) || bulk.WriteConcernError != nil {
		return nil, c.fail(ctx, "insert", err)
	}
	for _, e := range bulk.WriteErrors {
		if !e.HasErrorCode(duplicateKey) {
			return nil, c.fail(ctx, "insert", err)
		}
		duplicates = append(duplicates, e.Index)
	}
	return duplicates, nil
}

// Update changes every document of the scope that matches and returns how many did.
func (c *Collection) Update(ctx context.Context, scope []string, filter, update bson.D) (matched int64, err error) {
	if filter, err = tenant(scope, filter); err != nil {
		return 0, err
	}
	limited, cancel := context.WithTimeout(ctx, c.limit)
	defer cancel()
	res, err := c.c.UpdateMany(limited, filter, update)
	if mongo.IsDuplicateKeyError(err) {
		return 0, ErrDuplicate
	}
	if err != nil {
		return 0, c.fail(ctx, "update", err)
	}
	return res.MatchedCount, nil
}

// Delete removes the documents of the scope that match and returns how many did.
func (c *Collection) Delete(ctx context.Context, scope []string, filter bson.D) (int64, error) {
	filter, err := tenant(scope, filter)
	if err != nil {
		return 0, err
	}
	limited, cancel := context.WithTimeout(ctx, c.limit)
	defer cancel()
	res, err := c.c.DeleteMany(limited, filter)
	if err != nil {
		return 0, c.fail(ctx, "delete", err)
	}
	return res.DeletedCount, nil
}

// Owned is a document and its account.
type Owned struct {
	ID        string `bson:"_id"`
	AccountID string `bson:"account_id"`
}

// Owners finds documents of all accounts, for what has to be tidied up: the only read
// without a scope, and it tells ids only.
func (c *Collection) Owners(ctx context.Context, filter bson.D, most int64) ([]Owned, error) {
	if filter == nil {
		filter = bson.D{}
	}
	limited, cancel := context.WithTimeout(ctx, c.limit)
	defer cancel()
	cursor, err := c.c.Find(limited, filter, options.Find().SetLimit(most).SetProjection(bson.D{{Key: "_id", Value: int32(1)}, {Key: tenantField, Value: int32(1)}}))
	if err != nil {
		return nil, c.fail(ctx, "find", err)
	}
	var out []Owned
	return out, c.fail(ctx, "find", cursor.All(limited, &out))
}

func (c *Collection) fail(ctx context.Context, what string, err error) error {
	return c.db.translate(ctx, what+" in "+c.c.Name(), err)
}
