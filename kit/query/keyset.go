package query

import (
	"strings"
)

// keyset returns the condition that a row comes after the last row of the page
// before. NULLs are last ascending and first descending.
func (q *query) keyset(b *builder) string {
	if q.uniform() {
		if q.oneStretch() {
			return q.idAfter(b)
		}
		return q.rowComparison(b)
	}
	// after1 OR (same1 AND (after2 OR (same2 AND …))), with the bound that the first
	// key puts on all of it, so that an index on that key is entered at the right
	// place.
	last := len(q.keys) - 1
	sql := q.after1(b, last)
	for i := last - 1; i >= 0; i-- {
		after, same := q.after1(b, i), q.same(b, i)
		if after == "" {
			sql = "(" + same + " AND " + sql + ")"
			continue
		}
		sql = "(" + after + " OR (" + same + " AND " + sql + "))"
	}
	if bound := q.leadBound(b); bound != "" {
		return bound + " AND " + sql
	}
	return sql
}

// uniform reports whether all keys go one way and none can be NULL, so that a row
// comparison says it all.
func (q *query) uniform() bool {
	for i, k := range q.keys {
		if !k.field.notNull || k.desc != q.keys[0].desc || q.after[i] == nil {
			return false
		}
	}
	return true
}

// rowComparison compares all keys at once. The bound on the first key alone is
// implied; it lets the planner leave partitions out, and is left out where there
// are none, because the planner would count it twice.
func (q *query) rowComparison(b *builder) string {
	symbol := ">"
	if q.keys[0].desc {
		symbol = "<"
	}
	names, values := make([]string, len(q.keys)), make([]string, len(q.keys))
	for i, k := range q.keys {
		names[i], values[i] = k.field.expr, b.arg(*q.after[i], k.field.kind.sqlType())
	}
	if len(names) == 1 {
		return names[0] + " " + symbol + " " + values[0]
	}
	comparison := "(" + strings.Join(names, ", ") + ") " + symbol + " (" + strings.Join(values, ", ") + ")"
	if names[0] != q.spec.table.TimeInID {
		return comparison
	}
	return names[0] + " " + symbol + "= " + values[0] + " AND " + comparison
}

// after1 returns the condition that key i comes after its last value; empty if
// nothing can.
func (q *query) after1(b *builder, i int) string {
	k, value := q.keys[i], q.after[i]
	switch {
	case value == nil && k.desc:
		return k.field.expr + " IS NOT NULL"
	case value == nil:
		return ""
	case k.desc:
		return k.field.expr + " < " + b.arg(*value, k.field.kind.sqlType())
	case k.field.notNull:
		return k.field.expr + " > " + b.arg(*value, k.field.kind.sqlType())
	default:
		return "(" + k.field.expr + " > " + b.arg(*value, k.field.kind.sqlType()) + " OR " + k.field.expr + " IS NULL)"
	}
}

// same returns the condition that key i has its last value.
func (q *query) same(b *builder, i int) string {
	k, value := q.keys[i], q.after[i]
	if value == nil {
		return k.field.expr + " IS NULL"
	}
	return k.field.expr + " = " + b.arg(*value, k.field.kind.sqlType())
}

// leadBound returns what the whole condition implies for the first key; empty if
// that is nothing simple.
func (q *query) leadBound(b *builder) string {
	k, value := q.keys[0], q.after[0]
	switch {
	case value == nil && !k.desc:
		return k.field.expr + " IS NULL"
	case value == nil:
		return ""
	case k.desc:
		return k.field.expr + " <= " + b.arg(*value, k.field.kind.sqlType())
	case k.field.notNull:
		return k.field.expr + " >= " + b.arg(*value, k.field.kind.sqlType())
	default:
		return "(" + k.field.expr + " >= " + b.arg(*value, k.field.kind.sqlType()) + " OR " + k.field.expr + " IS NULL)"
	}
}
