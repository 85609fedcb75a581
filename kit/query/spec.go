package query

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	optionsv1 "github.com/turumba/turumba/gen/turumba/options/v1"
)

// Table says where the rows of a resource are. All of its texts are SQL written
// by us; none may come from a caller.
type Table struct {
	// From is the FROM item, for example "messages".
	From string
	// Select lists the columns of a row as the scan function expects them: names,
	// or "expression AS name". One text may list several, separated by commas.
	Select []string
	// Where is a fixed condition, for example "deleted_at IS NULL"; empty for none.
	Where string
	// Tenant is the uuid column of the owning account; empty means "account_id".
	Tenant string
	// ID is the uuid column that breaks ties; empty means "id". When it is also the
	// Tenant column, the scope is matched by = ANY, which is then a key look-up.
	ID string
	// TimeInID names a timestamptz column that always equals the millisecond inside
	// the UUIDv7 id; an id filter then also bounds that column, so that only one
	// partition is read. Empty if there is none.
	TimeInID string
	// Search says that the rows are many and that parts of text are found through
	// trigram indexes. A list that filters by them first looks how many rows fit
	// (probe.go).
	Search bool
	// Stretches says that most rows come in stretches of one time (stretch.go). Nil where
	// they do not.
	Stretches *Stretches
	// DefaultSort is used when the request has no sort; empty means
	// "created_at:desc" if that field is sortable, else by id.
	DefaultSort []string
	// Columns corrects or adds fields by name.
	Columns map[string]Column
	// TokenKey authenticates page tokens; at least 16 bytes, the same in every
	// process that serves the list.
	TokenKey []byte
}

// Column corrects what the contract says of a field, or declares a field that
// the resource message does not have.
type Column struct {
	// Expr is the SQL expression; empty means the contract's column or the name.
	Expr string
	// Kind is the type; KindAuto means the contract's.
	Kind Kind
	// NotNull says that Expr is never NULL, which makes deep pages cheaper. id,
	// account_id, created_at and updated_at always are.
	NotNull bool
	// Within wraps the comparison: SQL with one %s, where the comparison of Expr is
	// put, for example "EXISTS (SELECT 1 FROM members m WHERE m.user_id = users.id
	// AND %s)".
	Within string
	// Implied is a condition that a filter by eq implies: SQL with $value where its
	// operand goes, if anywhere. It leads the planner to an index that the field alone
	// would not be found by, and says nothing about how many rows fit.
	Implied string
	// Stretch says that what is implied is one time, so that the rows lie together in the
	// order of time.
	Stretch bool
	// Lead is what a filter by eq or in means for Stretches.Leads: a condition with $values,
	// the array of the operands, that holds wherever a row of the stretch may fit.
	Lead string
	// Page is what a filter by eq, contains or icontains means for Stretches.Pages: a
	// condition with $value that holds wherever a row of the page may fit. The operand of eq
	// stands between line feeds.
	Page string
	// Rough is what estimates of totals use instead of Expr: a column that the planner has
	// statistics of. Empty means Expr.
	Rough string
	// Operators declares a field that the message lacks; empty for fields it has.
	Operators []optionsv1.Operator
}

// Spec is what callers may ask of one list. It is immutable.
type Spec struct {
	table    Table
	name     string
	resource string
	fields   map[string]*field
	sorts    []sortKey
}

// field is one queryable field.
type field struct {
	name, expr, within string
	implied            string
	lead, page, rough  string
	stretch            bool
	kind               Kind
	notNull, tenant    bool
	id, sortable       bool
	operators          []optionsv1.Operator
	bounded            []optionsv1.Operator
	boundedBy          string
	boundedDays        uint32
	normalise          optionsv1.Normalise
	words              []string
	wordOf             map[string]string
}

// sortKey is one column of the order.
type sortKey struct {
	field *field
	desc  bool
}

// SpecFor builds the spec of a resource from the (query) options of its message.
// It fails when the contract declares something that cannot be served, so it is
// called when the program starts.
func SpecFor(md protoreflect.MessageDescriptor, t Table) (*Spec, error) {
	t = t.withDefaults()
	s := &Spec{table: t, name: string(md.FullName()), resource: string(md.Name()), fields: map[string]*field{}}
	problems := s.checkTable()
	for i := range md.Fields().Len() {
		problems = append(problems, s.addDeclared(md.Fields().Get(i)))
	}
	for name, c := range t.Columns {
		if len(c.Operators) > 0 {
			problems = append(problems, s.addExtra(name, c))
		} else if s.fields[name] == nil {
			problems = append(problems, fmt.Errorf("column %s: is not a queryable field of the message", name))
		}
	}
	problems = append(problems, s.checkBounds(), s.setDefaultSort())
	if err := errors.Join(problems...); err != nil {
		return nil, fmt.Errorf("query spec of %s: %w", md.FullName(), err)
	}
	return s, nil
}

func (t Table) withDefaults() Table {
	if t.Tenant == "" {
		t.Tenant = "account_id"
	}
	if t.ID == "" {
		t.ID = "id"
	}
	t.Select = splitColumns(strings.Join(t.Select, ", "))
	return t
}

// splitColumns splits a select list at the commas outside parentheses.
func splitColumns(list string) (columns []string) {
	depth, start := 0, 0
	for i, c := range list {
		switch c {
		case '(', '[':
			depth++
		case ')', ']':
			depth--
		case ',':
			if depth == 0 {
				columns = append(columns, strings.TrimSpace(list[start:i]))
				start = i + 1
			}
		}
	}
	if rest := strings.TrimSpace(list[start:]); rest != "" {
		columns = append(columns, rest)
	}
	return columns
}

func (s *Spec) checkTable() []error {
	var problems []error
	if s.table.From == "" || len(s.table.Select) == 0 {
		problems = append(problems, errors.New("table needs From and Select"))
	}
	for _, column := range s.table.Select {
		if name := outputName(column); strings.ContainsAny(name, "()[]:' ") {
			problems = append(problems, fmt.Errorf("column %q: needs AS and a name", column))
		}
	}
	if len(s.table.TokenKey) < 16 {
		problems = append(problems, errors.New("table needs a TokenKey of at least 16 bytes"))
	}
	return append(problems, s.table.checkStretches())
}

// addDeclared adds a field of the message if it has a (query) option.
func (s *Spec) addDeclared(fd protoreflect.FieldDescriptor) error {
	if !proto.HasExtension(fd.Options(), optionsv1.E_Query) {
		return nil
	}
	q, _ := proto.GetExtension(fd.Options(), optionsv1.E_Query).(*optionsv1.Query)
	name := string(fd.Name())
	c := s.table.Columns[name]
	f := &field{
		name: name, expr: firstOf(c.Expr, q.GetColumn(), name), within: c.Within, implied: c.Implied,
		lead: c.Lead, page: c.Page, rough: c.Rough, stretch: c.Stretch, kind: c.Kind, notNull: c.NotNull,
		sortable: q.GetSortable(), operators: q.GetOperators(), normalise: q.GetNormalise(),
		bounded: q.GetBoundedOperators(), boundedBy: q.GetBoundedBy(), boundedDays: q.GetBoundedDays(),
	}
	if f.kind == KindAuto {
		f.kind = kindOf(fd)
	}
	if f.kind == KindEnum && fd.Enum() != nil {
		f.setWords(fd.Enum())
	}
	if (f.kind == KindJSON) != q.GetAnyKey() {
		return fmt.Errorf("field %s: any_key is for JSON objects, and they need it", name)
	}
	return s.add(f)
}

func (s *Spec) addExtra(name string, c Column) error {
	if s.fields[name] != nil {
		return fmt.Errorf("column %s: its operators are declared in the contract", name)
	}
	return s.add(&field{
		name: name, expr: firstOf(c.Expr, name), within: c.Within, kind: c.Kind, notNull: c.NotNull, operators: c.Operators,
	})
}

// add checks a field and puts it into the spec.
func (s *Spec) add(f *field) error {
	f.tenant = f.expr == s.table.Tenant && f.within == ""
	f.id = f.expr == s.table.ID && f.within == ""
	switch f.name {
	case "id", "account_id", "created_at", "updated_at":
		f.notNull = true
	}
	bad := unsuitable(f.kind, append(slices.Clone(f.operators), f.bounded...))
	switch {
	case f.kind == KindAuto:
		return fmt.Errorf("field %s: its type cannot be queried", f.name)
	case len(bad) > 0:
		return fmt.Errorf("field %s: operators %v do not suit its type", f.name, bad)
	case f.normalise != 0 && f.kind != KindText:
		return fmt.Errorf("field %s: only text is normalised", f.name)
	case f.within != "" && strings.Count(f.within, "%s") != 1:
		return fmt.Errorf("field %s: Within needs %%s exactly once", f.name)
	case f.sortable && (f.within != "" || f.kind >= KindTextArray):
		return fmt.Errorf("field %s: cannot be sorted by", f.name)
	case f.tenant && !subset(f.operators, optionsv1.Operator_OPERATOR_EQ, optionsv1.Operator_OPERATOR_IN):
		return fmt.Errorf("field %s: the tenant can only be filtered by eq and in", f.name)
	}
	s.fields[f.name] = f
	return nil
}

// checkBounds checks that bounded operators are declared and that their range can
// be given.
func (s *Spec) checkBounds() error {
	for _, f := range s.fields {
		if len(f.bounded) == 0 {
			continue
		}
		by := s.fields[f.boundedBy]
		if by == nil || by.kind != KindTime || f.boundedDays == 0 || !slices.Contains(by.operators, optionsv1.Operator_OPERATOR_RANGE) {
			return fmt.Errorf("field %s: bounded_by must be a time with the range operator, bounded_days above 0", f.name)
		}
		if !subset(f.bounded, f.operators...) {
			return fmt.Errorf("field %s: bounded operators must be operators", f.name)
		}
	}
	return nil
}

func (s *Spec) setDefaultSort() error {
	sorts := s.table.DefaultSort
	if created := s.fields["created_at"]; len(sorts) == 0 && created != nil && created.sortable {
		sorts = []string{"created_at:desc"}
	}
	keys, err := s.sortKeys(sorts)
	s.sorts = keys
	return err
}

// setWords fills in the short lower-case words of an enum: the names without the
// prefix that its zero value shows, for example "queued" for
// MESSAGE_STATUS_QUEUED.
func (f *field) setWords(ed protoreflect.EnumDescriptor) {
	f.wordOf = map[string]string{}
	prefix := strings.TrimSuffix(string(ed.Values().ByNumber(0).Name()), "UNSPECIFIED")
	for i := range ed.Values().Len() {
		value := ed.Values().Get(i)
		if value.Number() == 0 {
			continue
		}
		word := strings.ToLower(strings.TrimPrefix(string(value.Name()), prefix))
		f.words = append(f.words, word)
		f.wordOf[word], f.wordOf[string(value.Name())] = word, word
	}
}

// Fields returns the names of the fields that can be filtered, sorted.
func (s *Spec) Fields() []string {
	var names []string
	for name, f := range s.fields {
		if len(f.operators) > 0 {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func subset(all []optionsv1.Operator, of ...optionsv1.Operator) bool {
	return !slices.ContainsFunc(all, func(op optionsv1.Operator) bool { return !slices.Contains(of, op) })
}

func firstOf(texts ...string) string {
	for _, t := range texts {
		if t != "" {
			return t
		}
	}
	return ""
}
