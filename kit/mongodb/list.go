package mongodb

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"strings"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	optionsv1 "github.com/turumba/turumba/gen/turumba/options/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/bounds"
	"github.com/turumba/turumba/kit/query"
)

// List runs a checked list request. Every sort path must hold a text or a time in
// every document: MongoDB puts missing values elsewhere than PostgreSQL. A total that
// is not counted within 50 ms is an estimate from below.
func List[T any](ctx context.Context, c *Collection, q *query.Checked) (*query.Page[T], error) {
	page := &query.Page[T]{Data: []T{}, Meta: &optionsv1.ListMeta{Skip: q.Skip, Limit: q.Limit}}
	if len(q.Scope) == 0 {
		return page, nil
	}
	filter, order, err := find(q)
	if err != nil {
		return nil, err
	}
	var docs []bson.Raw
	more, err := bounds.ReadPage(ctx, q.Weight, q.Limit, func(page *bounds.Page) (err error) {
		docs, err = c.page(ctx, q, page, filter, order)
		return err
	})
	if err != nil {
		return nil, err
	}
	if more {
		page.Meta.Limit = int32(len(docs)) // fewer than asked for where the page is as large as it may be
		if page.Meta.NextPageToken, err = nextToken(q, docs[len(docs)-1]); err != nil {
			return nil, err
		}
	}
	for _, raw := range docs {
		var v T
		if err := bson.Unmarshal(raw, &v); err != nil {
			return nil, fmt.Errorf("read document: %w", err)
		}
		page.Data = append(page.Data, v)
	}
	if q.NoTotal {
		return page, nil
	}
	seen := int64(len(docs))
	if seen > 0 {
		seen += int64(q.Skip)
	}
	if !more && q.After == nil && (q.Skip == 0 || len(docs) > 0) {
		page.Meta.Total = int32(seen)
		return page, nil
	}
	page.Meta.Total, page.Meta.TotalIsEstimate, err = c.total(ctx, q, seen)
	return page, err
}

// find returns the filter and the order of the page.
func find(q *query.Checked) (all, order bson.D, err error) {
	filter := bson.A{}
	if m := matching(q); m != nil {
		filter = append(filter, m)
	}
	behind, err := after(q)
	if err != nil {
		return nil, nil, err
	}
	if behind != nil {
		filter = append(filter, behind)
	}
	if len(filter) > 0 {
		all = bson.D{{Key: "$and", Value: filter}}
	}
	for _, k := range q.Sorts {
		direction := int32(1)
		if k.Desc {
			direction = -1
		}
		order = append(order, bson.E{Key: k.Path, Value: direction})
	}
	return all, order, nil
}

// page reads documents to the last that belongs to the page: then it fails with
// bounds.ErrFull if there are more.
func (c *Collection) page(ctx context.Context, q *query.Checked, page *bounds.Page, filter, order bson.D) (docs []bson.Raw, err error) {
	limited, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	err = c.each(limited, q.Scope, filter, Page{Sort: order, Skip: int64(q.Skip), Limit: int64(q.Limit) + 1}, func(doc bson.Raw) error {
		if len(docs) == int(q.Limit) {
			return bounds.ErrFull
		}
		if err := page.Add(len(doc), valuesOf(doc)); err != nil {
			return err
		}
		docs = append(docs, bytes.Clone(doc))
		return nil
	})
	if err != nil && ctx.Err() == nil && limited.Err() != nil {
		return nil, apierr.New(errorv1.Reason_REASON_DEADLINE_EXCEEDED, "the list takes longer than 5 s; narrow it with filters").Wrap(err)
	}
	return docs, err
}

// valuesOf counts the values of the texts in a document that are JSON.
func valuesOf(doc bson.Raw) (n int) {
	elements, err := doc.Elements()
	if err != nil {
		return 0 // who decodes it says so
	}
	for _, e := range elements {
		if text, ok := e.Value().StringValueOK(); ok && strings.HasPrefix(text, "{") {
			n += bounds.JSONValues([]byte(text))
		}
	}
	return n
}

func nextToken(q *query.Checked, last bson.Raw) (string, error) {
	values := make([]*string, len(q.Sorts))
	for i, k := range q.Sorts {
		var err error
		if values[i], err = sortText(last, k); err != nil {
			return "", err
		}
	}
	return q.NextToken(values)
}

// total counts the documents that match, up to query.MaxExactTotal and for no longer
// than the budget.
func (c *Collection) total(ctx context.Context, q *query.Checked, least int64) (total int32, estimate bool, err error) {
	limited, cancel := context.WithTimeout(ctx, countBudget)
	defer cancel()
	n, err := c.Count(limited, q.Scope, matching(q), query.MaxExactTotal+1)
	switch {
	case err != nil && ctx.Err() == nil && (limited.Err() != nil || mongo.IsTimeout(errors.Unwrap(err))):
		return int32(min(least, math.MaxInt32)), true, nil
	case err != nil:
		return 0, false, err
	}
	return int32(min(max(n, least), math.MaxInt32)), n > query.MaxExactTotal, nil
}
