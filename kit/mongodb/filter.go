package mongodb

import (
	"encoding/json"
	"fmt"
	"math/big"
	"regexp"
	"slices"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	optionsv1 "github.com/turumba/turumba/gen/turumba/options/v1"
	"github.com/turumba/turumba/kit/query"
)

// matching is the filter of a list without its accounts and its place.
func matching(c *query.Checked) bson.D {
	var all bson.A
	for _, cl := range c.Clauses {
		all = append(all, condition(cl))
	}
	if len(all) == 0 {
		return nil
	}
	return bson.D{{Key: "$and", Value: all}}
}

func condition(c query.Clause) bson.D {
	if c.Kind == query.KindJSON {
		return attribute(c)
	}
	switch c.Op {
	case optionsv1.Operator_OPERATOR_EQ:
		return Is(c.Path, "$eq", c.Values[0])
	case optionsv1.Operator_OPERATOR_NE: // as in SQL, nothing is not different
		return Is(c.Path, "$nin", bson.A{c.Values[0], nil})
	case optionsv1.Operator_OPERATOR_LT:
		return Is(c.Path, "$lt", c.Values[0])
	case optionsv1.Operator_OPERATOR_LE:
		return Is(c.Path, "$lte", c.Values[0])
	case optionsv1.Operator_OPERATOR_GT:
		return Is(c.Path, "$gt", c.Values[0])
	case optionsv1.Operator_OPERATOR_GE:
		return Is(c.Path, "$gte", c.Values[0])
	case optionsv1.Operator_OPERATOR_IN:
		return Is(c.Path, "$in", bson.A(c.Values))
	case optionsv1.Operator_OPERATOR_RANGE:
		return bson.D{{Key: c.Path, Value: bson.D{{Key: "$gte", Value: c.Values[0]}, {Key: "$lte", Value: c.Values[1]}}}}
	case optionsv1.Operator_OPERATOR_IS_NULL:
		return Is(c.Path, "$eq", nil)
	case optionsv1.Operator_OPERATOR_IS_NOT_NULL:
		return Is(c.Path, "$ne", nil)
	}
	return pattern(c)
}

// pattern matches a regular expression in which what the caller wrote is literal,
// except % and _ of like and ilike.
func pattern(c query.Clause) bson.D {
	value := fmt.Sprint(c.Values[0])
	literal := regexp.QuoteMeta(value)
	expr, options := "", "s"
	switch c.Op {
	case optionsv1.Operator_OPERATOR_CONTAINS:
		expr = literal
	case optionsv1.Operator_OPERATOR_ICONTAINS:
		expr, options = literal, "is"
	case optionsv1.Operator_OPERATOR_STARTSWITH:
		expr = "^" + literal
	case optionsv1.Operator_OPERATOR_ENDSWITH:
		expr = literal + `\z`
	case optionsv1.Operator_OPERATOR_LIKE:
		expr = "^" + likePattern(value) + `\z`
	case optionsv1.Operator_OPERATOR_ILIKE:
		expr, options = "^"+likePattern(value)+`\z`, "is"
	}
	return bson.D{{Key: c.Path, Value: bson.D{{Key: "$regex", Value: expr}, {Key: "$options", Value: options}}}}
}

// likePattern is a LIKE pattern as a regular expression without its anchors. Runs of
// % are one, so that no pattern backtracks for ever.
func likePattern(value string) string {
	var b strings.Builder
	escaped, run := false, false
	for _, c := range value {
		switch {
		case escaped:
			b.WriteString(regexp.QuoteMeta(string(c)))
			escaped = false
		case c == '\\':
			escaped = true
		case c == '%':
			if !run {
				b.WriteString(".*")
			}
			run = true
			continue
		case c == '_':
			b.WriteByte('.')
		default:
			b.WriteString(regexp.QuoteMeta(string(c)))
		}
		run = false
	}
	return b.String()
}

// Attributes are the texts by which documents are found by keys of their free data,
// a JSON object: that a key has a value, and which. A caller's key is part of a text
// and never of a path. Values longer than a filter can be are only noted as there.
func Attributes(object json.RawMessage) ([]string, error) {
	if len(object) == 0 {
		return []string{}, nil
	}
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(object, &keys); err != nil {
		return nil, fmt.Errorf("read free data: %w", err)
	}
	out := make([]string, 0, 2*len(keys))
	for key, raw := range keys {
		if string(raw) == "null" {
			continue
		}
		out = append(out, present(key))
		var text string
		if json.Unmarshal(raw, &text) == nil {
			if len(text) <= query.MaxValueLength {
				out = append(out, textual(key, text))
			}
		} else if n, ok := plain(string(raw)); ok {
			out = append(out, typed(key, n))
		}
	}
	slices.Sort(out)
	return out, nil
}

func present(key string) string        { return fmt.Sprintf("%d:%s", len(key), key) }
func textual(key, value string) string { return present(key) + "=s" + value }
func typed(key, value string) string   { return present(key) + "=j" + value }

// plain is a JSON number or boolean in one form for each value; huge exponents are
// left out, as in SQL.
func plain(raw string) (string, bool) {
	if raw == "true" || raw == "false" {
		return raw, true
	}
	if len(raw) > 30 || strings.ContainsAny(raw, "eE \t\r\n\"[{n") || !json.Valid([]byte(raw)) {
		return "", false
	}
	n, ok := new(big.Rat).SetString(raw)
	if !ok {
		return "", false
	}
	return n.RatString(), true
}

// attribute compares the value below a key of free data; a value that reads as a
// number or boolean matches both itself and its text.
func attribute(c query.Clause) bson.D {
	switch c.Op {
	case optionsv1.Operator_OPERATOR_IS_NULL:
		return Is(c.Path, "$ne", present(c.Key))
	case optionsv1.Operator_OPERATOR_IS_NOT_NULL:
		return Is(c.Path, "$eq", present(c.Key))
	}
	var forms bson.A
	for _, v := range c.Values {
		text := fmt.Sprint(v)
		forms = append(forms, textual(c.Key, text))
		if n, ok := plain(text); ok {
			forms = append(forms, typed(c.Key, n))
		}
	}
	if c.Op == optionsv1.Operator_OPERATOR_NE {
		return Is(c.Path, "$nin", forms)
	}
	return Is(c.Path, "$in", forms)
}

// after is the condition of documents behind the last one of the page before.
func after(c *query.Checked) (bson.D, error) {
	if c.After == nil {
		return nil, nil
	}
	values := make([]any, len(c.After))
	for i, text := range c.After {
		v, err := sortValue(c.Sorts[i].Kind, text)
		if err != nil {
			return nil, err
		}
		values[i] = v
	}
	var alternatives bson.A
	for i, k := range c.Sorts {
		var all bson.D
		for j := range i {
			all = append(all, Is(c.Sorts[j].Path, "$eq", values[j])...)
		}
		operator := "$gt"
		if k.Desc {
			operator = "$lt"
		}
		alternatives = append(alternatives, append(all, Is(k.Path, operator, values[i])...))
	}
	return bson.D{{Key: "$or", Value: alternatives}}, nil
}

// sortText is the value at a path as page tokens carry it.
func sortText(doc bson.Raw, k query.Sort) (*string, error) {
	v := doc.Lookup(strings.Split(k.Path, ".")...)
	if text, ok := v.StringValueOK(); ok {
		return &text, nil
	}
	if at, ok := v.TimeOK(); ok {
		text := at.UTC().Format(time.RFC3339Nano)
		return &text, nil
	}
	return nil, fmt.Errorf("the document has nothing to sort by at %s", k.Path)
}

func sortValue(kind query.Kind, text *string) (any, error) {
	if text == nil {
		return nil, fmt.Errorf("the page token has no sort value")
	}
	if kind == query.KindTime {
		return time.Parse(time.RFC3339Nano, *text)
	}
	return *text, nil
}
