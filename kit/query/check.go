package query

import (
	"slices"
	"strings"
	"time"

	optionsv1 "github.com/turumba/turumba/gen/turumba/options/v1"
)

const maxKeyLength = 200

// clauses checks the filters against the contract.
func (s *Spec) clauses(filters []string, region string) ([]clause, error) {
	if len(filters) > MaxFilters {
		return nil, invalidFilter("at most %d filters are allowed", MaxFilters)
	}
	all := make([]clause, 0, len(filters))
	for _, text := range filters {
		c, err := s.clause(text, region)
		if err != nil {
			return nil, err
		}
		all = append(all, c)
	}
	for _, c := range all {
		if err := c.checkBounded(all); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func (s *Spec) clause(text, region string) (clause, error) {
	raw, err := parseFilter(text)
	if err != nil {
		return clause{}, err
	}
	f, key, err := s.filterField(raw.field)
	if err != nil {
		return clause{}, err
	}
	if !slices.Contains(f.operators, raw.op) {
		return clause{}, invalidFilter("filter %s: operator %s is not allowed; it can be %s",
			quote(raw.field), operatorName(raw.op), strings.Join(operatorNames(f.operators), ", "))
	}
	values, err := f.values(raw, region)
	if err != nil {
		return clause{}, err
	}
	return clause{field: f, key: key, op: raw.op, values: values}, nil
}

// filterField finds a field by name, or the JSON field before the first dot.
func (s *Spec) filterField(name string) (*field, string, error) {
	if f := s.fields[name]; f != nil && f.kind != KindJSON && len(f.operators) > 0 {
		return f, "", nil
	}
	base, key, dotted := strings.Cut(name, ".")
	f := s.fields[base]
	switch {
	case dotted && f != nil && f.kind == KindJSON && key != "" && len(key) <= maxKeyLength:
		return f, key, nil
	case f != nil && f.kind == KindJSON:
		return nil, "", invalidFilter("filter %s: name a key of at most %d bytes, as in %s.key", quote(name), maxKeyLength, base)
	}
	return nil, "", invalidFilter("filter %s: no such filter field; it can be %s", quote(name), strings.Join(s.Fields(), ", "))
}

func operatorNames(ops []optionsv1.Operator) []string {
	names := make([]string, len(ops))
	for i, op := range ops {
		names[i] = operatorName(op)
	}
	return names
}

// checkBounded checks that an operator that needs a range on another field has it.
func (c clause) checkBounded(all []clause) error {
	if !slices.Contains(c.field.bounded, c.op) {
		return nil
	}
	by, days := c.field.boundedBy, c.field.boundedDays
	low, high, found := rangeOn(by, all)
	if found && high.Sub(low) <= time.Duration(days)*24*time.Hour {
		return nil
	}
	return invalidFilter("filter %s: operator %s needs a range of at most %d days on %s; add filter=%s:range:<from>,<to>",
		quote(c.field.name), operatorName(c.op), days, by, by)
}

// rangeOn returns the narrowest range that the filters put on a time field, and
// whether both its ends are given.
func rangeOn(name string, all []clause) (low, high time.Time, found bool) {
	var hasLow, hasHigh bool
	raise := func(v any) {
		if t, ok := v.(time.Time); ok && (!hasLow || t.After(low)) {
			low, hasLow = t, true
		}
	}
	lower := func(v any) {
		if t, ok := v.(time.Time); ok && (!hasHigh || t.Before(high)) {
			high, hasHigh = t, true
		}
	}
	for _, c := range all {
		if c.field.name != name {
			continue
		}
		switch c.op {
		case optionsv1.Operator_OPERATOR_EQ:
			raise(c.values[0])
			lower(c.values[0])
		case optionsv1.Operator_OPERATOR_RANGE:
			raise(c.values[0])
			lower(c.values[1])
		case optionsv1.Operator_OPERATOR_GE, optionsv1.Operator_OPERATOR_GT:
			raise(c.values[0])
		case optionsv1.Operator_OPERATOR_LE, optionsv1.Operator_OPERATOR_LT:
			lower(c.values[0])
		}
	}
	return low, high, hasLow && hasHigh
}

// sortKeys checks sort keys against the contract and appends the id, in the
// direction of the last key, so that the order is total.
func (s *Spec) sortKeys(sorts []string) ([]sortKey, error) {
	if len(sorts) > MaxSorts {
		return nil, invalidSort("at most %d sort keys are allowed", MaxSorts)
	}
	keys := make([]sortKey, 0, len(sorts)+1)
	desc := false
	for _, text := range sorts {
		raw, err := parseSort(text)
		if err != nil {
			return nil, err
		}
		f := s.fields[raw.field]
		if f == nil || !f.sortable {
			return nil, invalidSort("sort %s: no such sort field; it can be %s", quote(raw.field), strings.Join(s.sortable(), ", "))
		}
		if slices.ContainsFunc(keys, func(k sortKey) bool { return k.field == f }) {
			return nil, invalidSort("sort %s: is given twice", quote(raw.field))
		}
		keys = append(keys, sortKey{field: f, desc: raw.desc})
		desc = raw.desc
		if f.id {
			return keys, nil
		}
	}
	id := &field{name: "id", expr: s.table.ID, kind: KindUUID, notNull: true, id: true}
	return append(keys, sortKey{field: id, desc: desc}), nil
}

func (s *Spec) sortable() []string {
	var names []string
	for name, f := range s.fields {
		if f.sortable {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}
