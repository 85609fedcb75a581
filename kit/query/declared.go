package query

import (
	"slices"
	"strings"

	optionsv1 "github.com/turumba/turumba/gen/turumba/options/v1"
)

// Declared is a field of a list as the contract declares it.
type Declared struct {
	// Name is the field's name in filters and sorts.
	Name string
	// Kind is how its values are read and compared.
	Kind Kind
	// Operators are the operators that it can be filtered with.
	Operators []optionsv1.Operator
	// Bounded are those of the operators that need a range on BoundedBy.
	Bounded []optionsv1.Operator
	// BoundedBy names the time whose range bounds them; empty if none does.
	BoundedBy string
	// Normalise is the form that operands which are all of a value are brought into.
	Normalise optionsv1.Normalise
	// Words are the values of an enum as filters write them.
	Words []string
	// NotNull says that every row has a value.
	NotNull bool
	// Sortable says whether lists can be ordered by it.
	Sortable bool
	// Tenant says that the field chooses accounts of the scope.
	Tenant bool
}

// Declared returns the fields that can be filtered or sorted by, ordered by name.
func (s *Spec) Declared() []Declared {
	all := make([]Declared, 0, len(s.fields))
	for _, f := range s.fields {
		all = append(all, Declared{
			Normalise: f.normalise,
			Name:      f.name, Kind: f.kind, Operators: slices.Clone(f.operators), Bounded: slices.Clone(f.bounded), BoundedBy: f.boundedBy,
			Words: slices.Clone(f.words), NotNull: f.notNull, Sortable: f.sortable, Tenant: f.tenant,
		})
	}
	slices.SortFunc(all, func(a, b Declared) int { return strings.Compare(a.Name, b.Name) })
	return all
}
