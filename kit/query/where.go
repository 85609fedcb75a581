package query

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	optionsv1 "github.com/turumba/turumba/gen/turumba/options/v1"
)

// builder collects the parameters of one statement.
type builder struct {
	args []any
	// bare leaves out what filters imply, and compares as estimates do.
	bare bool
}

// arg binds v and returns its placeholder, cast to the SQL type.
func (b *builder) arg(v any, sqlType string) string {
	b.args = append(b.args, v)
	return "$" + strconv.Itoa(len(b.args)) + "::" + sqlType
}

// condition returns the SQL of a checked filter.
func (b *builder) condition(c clause) string {
	var sql string
	switch c.field.kind {
	case KindTextArray:
		sql = b.textArray(c)
	case KindJSONArray:
		sql = b.jsonArray(c)
	case KindJSON:
		sql = b.jsonKey(c)
	default:
		sql = b.scalar(c, b.expr(c.field))
	}
	if c.field.within != "" {
		return strings.Replace(c.field.within, "%s", sql, 1)
	}
	return sql
}

// expr is what a field is compared as.
func (b *builder) expr(f *field) string {
	if b.bare && f.rough != "" {
		return f.rough
	}
	return f.expr
}

// implied returns what an eq filter implies, led by AND.
func (b *builder) implied(c clause) string {
	if c.field.implied == "" || c.op != optionsv1.Operator_OPERATOR_EQ || b.bare {
		return ""
	}
	sql := c.field.implied
	if strings.Contains(sql, "$value") {
		sql = strings.ReplaceAll(sql, "$value", b.arg(c.values[0], c.field.kind.sqlType()))
	}
	return " AND " + sql
}

// scalar compares expr, which has the kind of the field.
func (b *builder) scalar(c clause, expr string) string {
	sqlType := c.field.kind.sqlType()
	symbol := map[optionsv1.Operator]string{
		optionsv1.Operator_OPERATOR_EQ: "=", optionsv1.Operator_OPERATOR_NE: "<>",
		optionsv1.Operator_OPERATOR_LT: "<", optionsv1.Operator_OPERATOR_LE: "<=",
		optionsv1.Operator_OPERATOR_GT: ">", optionsv1.Operator_OPERATOR_GE: ">=",
	}[c.op]
	if symbol != "" {
		return expr + " " + symbol + " " + b.arg(c.values[0], sqlType)
	}
	switch c.op {
	case optionsv1.Operator_OPERATOR_IN:
		return expr + " = ANY(" + b.arg(typed(c.field.kind, c.values), sqlType+"[]") + ")"
	case optionsv1.Operator_OPERATOR_RANGE:
		return expr + " BETWEEN " + b.arg(c.values[0], sqlType) + " AND " + b.arg(c.values[1], sqlType)
	case optionsv1.Operator_OPERATOR_IS_NULL:
		return expr + " IS NULL"
	case optionsv1.Operator_OPERATOR_IS_NOT_NULL:
		return expr + " IS NOT NULL"
	default:
		return b.pattern(c, expr)
	}
}

// pattern matches expr against a LIKE pattern; what the caller wrote is literal
// except for like and ilike.
func (b *builder) pattern(c clause, expr string) string {
	value := fmt.Sprint(c.values[0])
	literal := strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`).Replace(value)
	verb, pattern := "LIKE", value
	switch c.op {
	case optionsv1.Operator_OPERATOR_CONTAINS:
		pattern = "%" + literal + "%"
	case optionsv1.Operator_OPERATOR_ICONTAINS:
		verb, pattern = "ILIKE", "%"+literal+"%"
	case optionsv1.Operator_OPERATOR_STARTSWITH:
		pattern = literal + "%"
	case optionsv1.Operator_OPERATOR_ENDSWITH:
		pattern = "%" + literal
	case optionsv1.Operator_OPERATOR_ILIKE:
		verb = "ILIKE"
	}
	return expr + " " + verb + " " + b.arg(pattern, "text")
}

// textArray asks whether a text[] has an element (eq) or one of several (in).
func (b *builder) textArray(c clause) string {
	expr := c.field.expr
	switch c.op {
	case optionsv1.Operator_OPERATOR_EQ:
		return expr + " @> " + b.arg(typed(KindText, c.values), "text[]")
	case optionsv1.Operator_OPERATOR_NE:
		return "NOT (" + expr + " @> " + b.arg(typed(KindText, c.values), "text[]") + ")"
	case optionsv1.Operator_OPERATOR_IN:
		return expr + " && " + b.arg(typed(KindText, c.values), "text[]")
	default:
		return b.scalar(c, expr)
	}
}

// jsonArray asks the same of a jsonb array, by containment, which a GIN index
// serves.
func (b *builder) jsonArray(c clause) string {
	return b.containment(c, func(v string) []string { return []string{encode([]string{v})} })
}

// jsonKey compares the value below a key of a jsonb object. Equality is asked by
// containment, which a GIN index serves; a value that reads as a number or
// boolean matches both itself and its text.
func (b *builder) jsonKey(c clause) string {
	switch c.op {
	case optionsv1.Operator_OPERATOR_EQ, optionsv1.Operator_OPERATOR_NE, optionsv1.Operator_OPERATOR_IN:
		return b.containment(c, func(v string) []string {
			documents := []string{encode(map[string]string{c.key: v})}
			if isPlainJSON(v) {
				documents = append(documents, encode(map[string]json.RawMessage{c.key: json.RawMessage(v)}))
			}
			return documents
		})
	}
	text := c
	text.field = &field{name: c.field.name, kind: KindText}
	return b.scalar(text, "("+c.field.expr+" ->> "+b.arg(c.key, "text")+")")
}

// containment joins one @> test per value and document.
func (b *builder) containment(c clause, documents func(string) []string) string {
	if isNullCheck(c.op) {
		return b.scalar(c, c.field.expr)
	}
	var tests []string
	for _, v := range c.values {
		for _, document := range documents(fmt.Sprint(v)) {
			tests = append(tests, c.field.expr+" @> "+b.arg(document, "jsonb"))
		}
	}
	sql := "(" + strings.Join(tests, " OR ") + ")"
	if c.op == optionsv1.Operator_OPERATOR_NE {
		return "NOT " + sql
	}
	return sql
}

// isPlainJSON reports whether text is a JSON number or boolean. Huge exponents
// are left out: PostgreSQL would expand them.
func isPlainJSON(text string) bool {
	if text == "true" || text == "false" {
		return true
	}
	return len(text) <= 30 && !strings.ContainsAny(text, "eE \t\r\n\"[{n") && json.Valid([]byte(text))
}

// encode returns v, which holds only valid UTF-8, as JSON.
func encode(v any) string {
	out, err := json.Marshal(v)
	if err != nil {
		return "null"
	}
	return string(out)
}

// typed returns the values as the slice that pgx sends as an array.
func typed(k Kind, values []any) any {
	switch k {
	case KindBool:
		return sliceOf[bool](values)
	case KindInt:
		return sliceOf[int64](values)
	case KindFloat:
		return sliceOf[float64](values)
	case KindTime:
		return sliceOf[time.Time](values)
	default:
		return sliceOf[string](values)
	}
}

func sliceOf[T any](values []any) []T {
	out := make([]T, 0, len(values))
	for _, v := range values {
		if t, ok := v.(T); ok {
			out = append(out, t)
		}
	}
	return out
}

// idTime returns the bounds that UUIDv7 ids put on the time inside them; false if
// one of the ids is of another kind.
func idTime(c clause) (low, high time.Time, ok bool) {
	if c.op != optionsv1.Operator_OPERATOR_EQ && c.op != optionsv1.Operator_OPERATOR_IN {
		return low, high, false
	}
	for i, v := range c.values {
		id, err := uuid.Parse(fmt.Sprint(v))
		if err != nil || id.Version() != 7 {
			return low, high, false
		}
		at := timeIn(id)
		if i == 0 || at.Before(low) {
			low = at
		}
		if i == 0 || at.After(high) {
			high = at
		}
	}
	return low, high, true
}

// timeIn is the time inside a UUIDv7.
func timeIn(id [16]byte) time.Time {
	return time.UnixMilli(int64(binary.BigEndian.Uint64(id[:8]) >> 16)).UTC()
}
