package query

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	optionsv1 "github.com/turumba/turumba/gen/turumba/options/v1"
	"github.com/turumba/turumba/kit/address"
)

// clause is a filter that was checked against the contract.
type clause struct {
	field *field
	// key is the key below a JSON field; empty for others.
	key string
	op  optionsv1.Operator
	// values holds the typed operands: none for null checks, two for range, one or
	// more for in, else one.
	values []any
}

// values reads the operands of a raw clause.
func (f *field) values(raw rawClause, region string) ([]any, error) {
	var parts []string
	switch {
	case isNullCheck(raw.op):
		return nil, nil
	case raw.op == optionsv1.Operator_OPERATOR_IN:
		parts = list(raw.value)
		if len(parts) > MaxListItems {
			return nil, invalidFilter("filter %s: operator in takes at most %d values", quote(raw.field), MaxListItems)
		}
	case raw.op == optionsv1.Operator_OPERATOR_RANGE:
		parts = list(raw.value)
		if len(parts) != 2 {
			return nil, invalidFilter("filter %s: operator range takes two values separated by a comma", quote(raw.field))
		}
	default:
		parts = []string{raw.value}
	}
	values := make([]any, len(parts))
	for i, part := range parts {
		// In the patterns of like \ has a meaning of its own, by which \, is a comma as well.
		if raw.op != optionsv1.Operator_OPERATOR_LIKE && raw.op != optionsv1.Operator_OPERATOR_ILIKE {
			part = unescape(part)
		}
		v, err := f.value(raw, part, region)
		if err != nil {
			return nil, err
		}
		values[i] = v
	}
	return values, checkRange(raw, values)
}

// value reads one operand.
func (f *field) value(raw rawClause, text, region string) (any, error) {
	if len(text) > MaxValueLength {
		return nil, invalidFilter("filter %s: a value may be at most %d bytes long", quote(raw.field), MaxValueLength)
	}
	if f.kind == KindEnum {
		word, ok := f.wordOf[text]
		if !ok {
			return nil, invalidFilter("filter %s: expected one of %s, got %s", quote(raw.field), strings.Join(f.words, ", "), quote(text))
		}
		return word, nil
	}
	if f.normalise != 0 && slices.Contains(whole, raw.op) {
		return f.normalised(raw, text, region)
	}
	if f.kind.expects() == "text" {
		return text, checkText(raw, text)
	}
	v, ok := f.kind.read(text)
	if !ok {
		return nil, invalidFilter("filter %s: expected %s, got %s", quote(raw.field), f.kind.expects(), quote(text))
	}
	return v, nil
}

// whole are the operators whose operand is all of a value.
var whole = []optionsv1.Operator{optionsv1.Operator_OPERATOR_EQ, optionsv1.Operator_OPERATOR_NE, optionsv1.Operator_OPERATOR_IN}

// normalised brings an operand into the form that the field is stored in. What is no mailbox
// and no id is compared as it is: nothing has it.
func (f *field) normalised(raw rawClause, text, region string) (any, error) {
	kind := f.normalise
	if kind == optionsv1.Normalise_NORMALISE_ADDRESS || kind == optionsv1.Normalise_NORMALISE_DELIVERY_ADDRESS {
		switch {
		case !strings.Contains(text, "@"):
			if number, err := address.Phone(text, region); err == nil {
				return number, nil
			}
			if id, err := address.ID(text); err == nil {
				return id, nil
			}
			return text, checkText(raw, text)
		case kind == optionsv1.Normalise_NORMALISE_DELIVERY_ADDRESS:
			return address.Trim(text), checkText(raw, text)
		}
		kind = optionsv1.Normalise_NORMALISE_EMAIL
	}
	if kind == optionsv1.Normalise_NORMALISE_EMAIL || text == "" {
		return address.EmailKey(text), checkText(raw, text)
	}
	number, err := address.Phone(text, region)
	if err != nil {
		return nil, invalidFilter("filter %s: %s %s", quote(raw.field), quote(text), err.Error())
	}
	return number, nil
}

// read parses the text of a kind that is not text.
func (k Kind) read(text string) (any, bool) {
	switch k {
	case KindUUID:
		id, err := uuid.Parse(text)
		return id.String(), err == nil && len(text) == 36
	case KindBool:
		return text == "true", text == "true" || text == "false"
	case KindInt:
		n, err := strconv.ParseInt(text, 10, 64)
		return n, err == nil
	case KindFloat:
		n, err := strconv.ParseFloat(text, 64)
		return n, err == nil && !math.IsNaN(n) && !math.IsInf(n, 0)
	default:
		return readTime(text)
	}
}

// readTime reads RFC 3339 or a date, which means its first instant in UTC. In a
// URL a plus sign turns into a space; it is read as the plus it was.
func readTime(text string) (any, bool) {
	if t, err := time.Parse(time.RFC3339Nano, strings.Replace(text, " ", "+", 1)); err == nil {
		return t.UTC(), true
	}
	t, err := time.Parse(time.DateOnly, text)
	return t, err == nil
}

// checkText refuses operands that mean everything, nothing, or a pattern that
// PostgreSQL cannot read.
func checkText(raw rawClause, text string) error {
	switch raw.op {
	case optionsv1.Operator_OPERATOR_LIKE, optionsv1.Operator_OPERATOR_ILIKE:
		if slashes := len(text) - len(strings.TrimRight(text, `\`)); slashes%2 == 1 {
			return invalidFilter("filter %s: the pattern must not end with a single backslash", quote(raw.field))
		}
	case optionsv1.Operator_OPERATOR_EQ, optionsv1.Operator_OPERATOR_NE:
		return nil
	}
	if text == "" {
		return invalidFilter("filter %s: operator %s needs a value that is not empty", quote(raw.field), operatorName(raw.op))
	}
	return nil
}

// checkRange refuses a range whose bounds are in the wrong order.
func checkRange(raw rawClause, values []any) error {
	if raw.op != optionsv1.Operator_OPERATOR_RANGE {
		return nil
	}
	wrong := false
	switch low := values[0].(type) {
	case int64:
		high, _ := values[1].(int64)
		wrong = low > high
	case float64:
		high, _ := values[1].(float64)
		wrong = low > high
	case time.Time:
		high, _ := values[1].(time.Time)
		wrong = low.After(high)
	}
	if wrong {
		return invalidFilter("filter %s: the first bound of a range must not be above the second", quote(raw.field))
	}
	return nil
}
