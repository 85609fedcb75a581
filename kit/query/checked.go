package query

import (
	"errors"

	optionsv1 "github.com/turumba/turumba/gen/turumba/options/v1"
)

// Checked is a list request that keeps to the contract, for stores that do not
// speak SQL (kit/query/mongoquery).
type Checked struct {
	// Tenant and ID are the paths of the owning account and of the id.
	Tenant, ID string
	// Scope is the accounts that the list reads: the caller's, narrowed by filters
	// on the account. When it is empty the list is empty.
	Scope []string
	// Clauses must all hold.
	Clauses []Clause
	// Sorts is the order; the last is the id.
	Sorts []Sort
	// After are the sort values of the last row of the page before, as Text gave
	// them; nil on the first page.
	After []*string
	// Skip and Limit are the page as it applies.
	Skip, Limit int32
	// NoTotal leaves the total out.
	NoTotal bool
	// Weight is the most that the page may weigh.
	Weight int64

	spec   *Spec
	digest []byte
}

// Clause is a filter that was checked against the contract.
type Clause struct {
	// Path is where the value is.
	Path string
	Kind Kind
	// Key is the key below a JSON field; empty for others.
	Key string
	Op  optionsv1.Operator
	// Values holds the typed operands: none for null checks, two for range, one or
	// more for in, else one.
	Values []any
}

// Sort is one key of the order.
type Sort struct {
	Path string
	Kind Kind
	Desc bool
}

// Check checks the request against the spec for the accounts in scope. Errors are
// those of Compile.
func Check(spec *Spec, r Request, scope []string) (*Checked, error) {
	q, digest, err := spec.check(r, scope)
	if err != nil {
		return nil, err
	}
	c := &Checked{
		Tenant: spec.table.Tenant, ID: spec.table.ID, Scope: q.scope, After: q.after, Skip: q.skip, Limit: q.limit, NoTotal: r.NoTotal, Weight: r.Weight,
		spec: spec, digest: digest,
	}
	for _, cl := range q.clauses {
		c.Clauses = append(c.Clauses, Clause{Path: cl.field.expr, Kind: cl.field.kind, Key: cl.key, Op: cl.op, Values: cl.values})
	}
	for _, k := range q.keys {
		c.Sorts = append(c.Sorts, Sort{Path: k.field.expr, Kind: k.field.kind, Desc: k.desc})
	}
	return c, nil
}

// NextToken returns the token of the page that begins after a row with the given
// sort values.
func (c *Checked) NextToken(values []*string) (string, error) {
	if len(values) != len(c.Sorts) {
		return "", errors.New("a page token needs one value for each sort key")
	}
	return c.spec.sealToken(c.digest, values)
}

// check reads a request: what is filtered, how it is sorted, and where it begins.
func (s *Spec) check(r Request, scope []string) (*query, []byte, error) {
	if len(scope) == 0 {
		return nil, nil, errors.New("compile query: scope is empty")
	}
	limit, err := r.page()
	if err != nil {
		return nil, nil, err
	}
	clauses, err := s.clauses(r.Filters, r.Region)
	if err != nil {
		return nil, nil, err
	}
	keys := s.sorts
	if len(r.Sorts) > 0 {
		if keys, err = s.sortKeys(r.Sorts); err != nil {
			return nil, nil, err
		}
	}
	q := &query{spec: s, keys: keys, skip: r.Skip, limit: limit}
	q.narrow(scope, clauses)
	digest := s.digest(q.scope, r.Filters, keys)
	if r.PageToken != "" {
		if q.after, err = s.openToken(r.PageToken, digest, len(keys)); err != nil {
			return nil, nil, err
		}
	}
	return q, digest, nil
}
