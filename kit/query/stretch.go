package query

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	optionsv1 "github.com/turumba/turumba/gen/turumba/options/v1"
)

// Rows that are written by the hundred thousand have much in common: the messages of a
// send have one time, one channel, one template. An index on each of these would cost
// every row; so the rows are found through what leads to them, which is one row for many,
// and only rows that stand alone have such indexes.

// Stretches says that the rows of a table come in stretches of one time, besides some
// that stand alone.
type Stretches struct {
	// Alone is the condition of the rows in no stretch.
	Alone string
	// Leads lead to the stretches of the list. Filters by Column.Lead choose among them.
	Leads Lead
	// Pages lead to parts of stretches, by the texts in them. Filters by Column.Page
	// choose among them. Its zero value is none.
	Pages Lead
}

// Lead is a table each of whose rows leads to a stretch of another. It has the same
// tenant column; SQL that reads it calls it lead.
type Lead struct {
	// From is the table.
	From string
	// Time is the column that equals Table.TimeInID of all rows of the stretch.
	Time string
	// Rows is the condition, besides that, of the rows of the stretch.
	Rows string
}

// stretchSQL makes what is read of stretches come in the order of the list: the planner
// does not know how long a stretch is, and would read all of it to sort it.
const stretchSQL = "SELECT set_config('enable_bitmapscan', 'off', true), set_config('enable_seqscan', 'off', true), set_config('enable_sort', 'off', true)"

func (t Table) checkStretches() error {
	if t.Stretches != nil && t.TimeInID == "" {
		return errors.New("table with Stretches needs TimeInID")
	}
	return nil
}

// led reports whether the list is read as two: the rows alone, and the stretches that
// the filters choose.
func (q *query) led() bool { return q.spec.table.Stretches != nil && q.inTime() && !q.found() }

// paged reports whether a text is looked for in pages first.
func (q *query) paged() bool {
	return q.spec.table.Stretches != nil && !q.found() && slices.ContainsFunc(q.clauses, clause.inPages)
}

// found reports whether a filter leads to few rows, or to one stretch, by itself.
func (q *query) found() bool {
	return slices.ContainsFunc(q.clauses, func(c clause) bool { return isEqual(c.op) && (c.field.id || c.field.implied != "") })
}

// inTime reports whether the order is that of time, in which stretches are.
func (q *query) inTime() bool {
	return len(q.keys) == 2 && q.keys[0].field.expr == q.spec.table.TimeInID && q.keys[1].field.id && q.keys[0].desc == q.keys[1].desc
}

// settings are those that the page and its total are read with.
func (q *query) settings() []string {
	if q.led() || q.oneStretch() {
		return []string{stretchSQL}
	}
	return nil
}

// oneStretch reports whether all that fits is of one time.
func (q *query) oneStretch() bool {
	return q.inTime() && slices.ContainsFunc(q.clauses, func(c clause) bool { return c.field.stretch && c.op == optionsv1.Operator_OPERATOR_EQ })
}

func isEqual(op optionsv1.Operator) bool {
	return op == optionsv1.Operator_OPERATOR_EQ || op == optionsv1.Operator_OPERATOR_IN
}

// inPages reports whether the clause looks for a text that pages hold.
func (c clause) inPages() bool {
	switch c.op {
	case optionsv1.Operator_OPERATOR_EQ, optionsv1.Operator_OPERATOR_CONTAINS, optionsv1.Operator_OPERATOR_ICONTAINS:
		return c.field.page != ""
	}
	return false
}

// halves returns the rows alone and those of the stretches of an account, each as far as
// the page may need them and in its order; items is what is selected. tenant is the
// condition on the tenant column, whose name it begins with.
func (q *query) halves(b *builder, tenant, items string) string {
	t := q.spec.table
	for i, k := range q.keys {
		items += fmt.Sprintf(", %s AS sort_%d", k.field.expr, i)
	}
	order := q.order(func(i int) string { return q.keys[i].field.expr })
	most := " LIMIT " + b.arg(int64(q.skip)+int64(q.limit)+1, "bigint")
	alone := "SELECT " + items + " FROM " + t.From + " WHERE " + tenant + " AND " + t.Stretches.Alone + q.where(b, true) + " ORDER BY " + order + most
	rows := q.stretch(b, t.Stretches.Leads, tenant, items, true) + " ORDER BY " + order + most
	led := "SELECT part.* FROM " + t.Stretches.Leads.From + " AS lead CROSS JOIN LATERAL (" + rows + ") AS part WHERE lead." + tenant + q.leads(b, true) +
		" ORDER BY " + q.order(func(i int) string { return []string{"lead." + t.Stretches.Leads.Time, "part.sort_1"}[i] }) + most
	return "((" + alone + ") UNION ALL (" + led + "))"
}

// stretch returns the rows that a lead leads to.
func (q *query) stretch(b *builder, l Lead, tenant, items string, after bool) string {
	t := q.spec.table
	sql := "SELECT " + items + " FROM " + t.From + " WHERE " + tenant + " AND " + t.TimeInID + " = lead." + l.Time + " AND " + l.Rows + q.where(b, false)
	if after && q.after != nil {
		sql += " AND " + q.idAfter(b)
	}
	return sql
}

// idAfter is the keyset of rows of one time. It says no more than that of all rows, but
// the index is entered at the right id by no other.
func (q *query) idAfter(b *builder) string {
	symbol := " > "
	if q.keys[1].desc {
		symbol = " < "
	}
	return q.spec.table.ID + symbol + b.arg(*q.after[1], "uuid")
}

// leads returns the conditions on what leads to stretches, each led by AND. What has no
// time yet has no rows, and need not be in the index by time.
func (q *query) leads(b *builder, after bool) string {
	at := "lead." + q.spec.table.Stretches.Leads.Time
	sql := " AND " + at + " IS NOT NULL" + q.leadTime(b, at)
	for _, c := range q.clauses {
		if c.field.lead != "" && isEqual(c.op) {
			sql += " AND " + strings.ReplaceAll(c.field.lead, "$values", b.arg(typed(c.field.kind, c.values), c.field.kind.sqlType()+"[]"))
		}
	}
	if !after || q.after == nil {
		return sql
	}
	symbol := " >= "
	if q.keys[0].desc {
		symbol = " <= "
	}
	return sql + " AND " + at + symbol + b.arg(*q.after[0], "timestamptz")
}

// pages returns the conditions on pages, each led by AND. A page holds texts between line
// feeds, so that a whole one can be told from a part.
func (q *query) pages(b *builder) string {
	sql := q.leadTime(b, "lead."+q.spec.table.Stretches.Pages.Time)
	for _, c := range q.clauses {
		if !c.inPages() {
			continue
		}
		text := fmt.Sprint(c.values[0])
		if c.op == optionsv1.Operator_OPERATOR_EQ {
			text = "\n" + text + "\n"
		}
		sql += " AND " + strings.ReplaceAll(c.field.page, "$value", b.arg(text, "text"))
	}
	return sql
}

// leadTime puts the bounds of the time on the time of what leads.
func (q *query) leadTime(b *builder, at string) (sql string) {
	for _, c := range q.clauses {
		if c.field.expr == q.spec.table.TimeInID && c.field.within == "" {
			sql += " AND " + b.scalar(c, at)
		}
	}
	return sql
}

// anywhere returns the rows that match, alone and in the stretches of l, in no order and
// of each half at most as many as most says.
func (q *query) anywhere(b *builder, l Lead, conditions, tenant, item, most string) string {
	t := q.spec.table
	return "(SELECT " + item + " FROM " + t.From + " WHERE " + tenant + " AND " + t.Stretches.Alone + q.where(b, false) + most + ") UNION ALL (SELECT part.* FROM " +
		l.From + " AS lead CROSS JOIN LATERAL (" + q.stretch(b, l, tenant, item, false) + most + ") AS part WHERE lead." + tenant + conditions + most + ")"
}
