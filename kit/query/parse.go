package query

import (
	"strings"
	"unicode/utf8"

	optionsv1 "github.com/turumba/turumba/gen/turumba/options/v1"
)

const operatorPrefix = "OPERATOR_"

// rawClause is a filter as written, before the contract is looked at.
type rawClause struct {
	field string
	op    optionsv1.Operator
	value string
}

// rawSort is a sort key as written.
type rawSort struct {
	field string
	desc  bool
}

// escape takes the meaning from a comma, a colon or itself: names of keys may have colons, and
// what is listed may have commas. Before anything else it is a character like others.
const escape = '\\'

// cut is strings.Cut at the first separator that is not escaped.
func cut(text string, separator byte) (before, after string, found bool) {
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case escape:
			i++
		case separator:
			return text[:i], text[i+1:], true
		}
	}
	return text, "", false
}

// list splits at the commas that are not escaped.
func list(text string) (parts []string) {
	for {
		part, rest, more := cut(text, ',')
		parts = append(parts, part)
		if !more {
			return parts
		}
		text = rest
	}
}

// unescape is what a name or a value stands for.
var unescape = strings.NewReplacer(`\\`, `\`, `\,`, `,`, `\:`, `:`).Replace

// parseFilter splits "field:op:value" at the first two colons, of which those of a field may be
// escaped. is_null and is_not_null stand without a value.
func parseFilter(text string) (rawClause, error) {
	if !utf8.ValidString(text) || strings.ContainsRune(text, 0) {
		return rawClause{}, invalidFilter("filter %s: must be text in UTF-8 without zero bytes", quote(text))
	}
	field, rest, ok := cut(text, ':')
	field = unescape(field)
	if !ok || field == "" {
		return rawClause{}, invalidFilter("filter %s: must be field:op:value", quote(text))
	}
	name, value, hasValue := strings.Cut(rest, ":")
	op, known := operatorOf(name)
	switch {
	case !known:
		return rawClause{}, invalidFilter("filter %s: operator %s is unknown", quote(field), quote(name))
	case isNullCheck(op) && hasValue:
		return rawClause{}, invalidFilter("filter %s: operator %s takes no value", quote(field), name)
	case !isNullCheck(op) && !hasValue:
		return rawClause{}, invalidFilter("filter %s: operator %s needs a value", quote(field), name)
	}
	return rawClause{field: field, op: op, value: value}, nil
}

// parseSort reads "field", "field:asc" or "field:desc".
func parseSort(text string) (rawSort, error) {
	field, direction, given := strings.Cut(text, ":")
	switch {
	case field == "":
		return rawSort{}, invalidSort("sort %s: must be field:asc or field:desc", quote(text))
	case !given || direction == "asc":
		return rawSort{field: field}, nil
	case direction == "desc":
		return rawSort{field: field, desc: true}, nil
	}
	return rawSort{}, invalidSort("sort %s: the direction must be asc or desc", quote(field))
}

func isNullCheck(op optionsv1.Operator) bool {
	return op == optionsv1.Operator_OPERATOR_IS_NULL || op == optionsv1.Operator_OPERATOR_IS_NOT_NULL
}

// operatorOf returns the operator with the given lower-case name.
func operatorOf(name string) (optionsv1.Operator, bool) {
	if name != strings.ToLower(name) {
		return 0, false
	}
	number, ok := optionsv1.Operator_value[operatorPrefix+strings.ToUpper(name)]
	return optionsv1.Operator(number), ok && number != 0
}

// operatorName returns the name of an operator as filters write it.
func operatorName(op optionsv1.Operator) string {
	return strings.ToLower(strings.TrimPrefix(op.String(), operatorPrefix))
}

// quote shows what the caller wrote, shortened, in an error text.
func quote(text string) string {
	const most = 80
	text = strings.ToValidUTF8(strings.ReplaceAll(text, "\x00", "\uFFFD"), "\uFFFD")
	if len(text) > most {
		cut := most
		for !utf8.RuneStart(text[cut]) {
			cut--
		}
		text = text[:cut] + "…"
	}
	return `"` + text + `"`
}
