package security_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/turumba/turumba/e2e/wire"
	"github.com/turumba/turumba/e2e/world"
	optionsv1 "github.com/turumba/turumba/gen/turumba/options/v1"
)

// tenantLists tries to widen every list: by account filters, ids of others in
// every filter, sorts by what is hidden, and page tokens of somebody else.
func tenantLists(t *testing.T, w *world.World) {
	t.Helper()
	s := report.suite("lists")
	lists := 0
	for _, f := range loadFixtures(t) {
		resource := listed(f.method)
		if resource == nil {
			continue
		}
		lists++
		for _, over := range f.wires() {
			l := list{s, f, resource, over}
			l.filters(t, w)
			l.attacks(t, w)
			l.tokens(t, w)
		}
	}
	s.coverage = fmt.Sprintf("%d lists, 2 wires", lists)
}

// list is one list RPC over one wire.
type list struct {
	*suite
	f        fixture
	resource protoreflect.MessageDescriptor
	over     string
}

// listed is the resource that a list RPC lists; nil for other RPCs.
func listed(md protoreflect.MethodDescriptor) protoreflect.MessageDescriptor {
	data := md.Output().Fields().ByName("data")
	if data == nil || md.Input().Fields().ByName("filter") == nil {
		return nil
	}
	return data.Message()
}

// ask lists as the actor with further parameters.
func (l list) ask(t *testing.T, w *world.World, as string, params map[string]any) wire.Answer {
	t.Helper()
	body := l.f.body(w.Vars, "", "")
	for k, v := range params {
		body[k] = v
	}
	got, err := l.f.call(t, w, l.over, as, body)
	require.NoError(t, err)
	return got
}

func (l list) where(params any) string {
	return fmt.Sprintf("%s over %s with %v", l.f.RPC, l.over, params)
}

// filters puts the other organisation's ids into every filter that takes one.
func (l list) filters(t *testing.T, w *world.World) {
	t.Helper()
	fields := l.resource.Fields()
	for i := range fields.Len() {
		fd := fields.Get(i)
		q, _ := proto.GetExtension(fd.Options(), optionsv1.E_Query).(*optionsv1.Query)
		if len(q.GetOperators()) == 0 || !isID(fd) {
			continue
		}
		theirs := l.theirs(w, string(fd.Name()))
		filters := []string{fmt.Sprintf("%s:eq:%s", fd.Name(), theirs)}
		for _, op := range q.GetOperators() {
			if op == optionsv1.Operator_OPERATOR_IN {
				filters = append(filters, fmt.Sprintf("%s:in:%s,%s", fd.Name(), w.Vars["account_id"], theirs))
			}
		}
		for _, filter := range filters {
			all := []any{filter}
			if by := q.GetBoundedBy(); by != "" {
				now := w.Instance.Now()
				all = append(all, fmt.Sprintf("%s:range:%s,%s", by, now.AddDate(0, 0, -7).Format(time.RFC3339), now.Format(time.RFC3339)))
			}
			got := l.ask(t, w, "owner", map[string]any{"filter": all})
			found := leaked(got, ids(w.Vars, "", map[string]any{"f": filter}))
			l.check(t, got.Reason == "" && len(found) == 0, "%s: %s %s, leaks %v", l.where(filter), got.Reason, got.Detail, found)
			if strings.Contains(filter, ":eq:") {
				total, _ := wire.Lookup(got.Body, "meta.total")
				l.check(t, total == nil || total == 0.0, "%s: total %v", l.where(filter), total)
			}
		}
	}
}

// theirs is an id of the other organisation that suits the field.
func (l list) theirs(w *world.World, field string) string {
	name := field
	if field == "id" {
		name = snake(string(l.resource.Name())) + "_id"
	}
	for _, candidate := range []string{name, map[string]string{"group_message_id": "done_id", "user_id": "outsider_user_id"}[name]} {
		if id, ok := w.Vars[foreign+candidate]; ok {
			return id
		}
		if id, ok := w.Vars[candidate]; ok && strings.HasPrefix(candidate, "outsider") {
			return id
		}
	}
	return w.Vars["foreign_account_id"]
}

func snake(s string) string {
	var b strings.Builder
	for i, c := range s {
		if c >= 'A' && c <= 'Z' {
			if i > 0 {
				b.WriteByte('_')
			}
			c += 'a' - 'A'
		}
		b.WriteRune(c)
	}
	return b.String()
}

// attacks are the payloads of catalogue 6.5 (S-71, S-73): each is refused or
// finds nothing, and none is an internal error.
func (l list) attacks(t *testing.T, w *world.World) {
	t.Helper()
	values := []string{
		"' OR 1=1--", "x);DROP TABLE contacts;--", "\x00", "$1", "x::regclass", "%", "_", `\`, strings.Repeat("a", 60_000), strings.Repeat("a,", 10_000),
		"ｅｑ", "9223372036854775808", "NaN", "10000-01-01", "-0001-01-01T00:00:00Z", "2026-01-01T00:00:00+99:99", "-1", "", `{"$gt":""}`, `{"$where":"sleep(5000)"}`, "(a+)+$", "__proto__",
	}
	fields := []string{"id", "account_id", "name", "created_at", "no_such_field", "ID", "password_hash", "id) OR (1=1", "metadata.a'b", "metadata.$where", "doc"}
	for _, field := range fields {
		for i, value := range values {
			if l.over == wire.REST && len(value) > 8<<10 {
				value = value[:8<<10] // net/http itself refuses longer request lines
			}
			if i%3 != len(field)%3 && !full { // a third of the square in the quick form; every field and value is in it
				continue
			}
			for _, op := range []string{"eq", "icontains", "in", "ge", "EQ"} {
				l.refusedOrOwn(t, w, map[string]any{"filter": []any{field + ":" + op + ":" + value}})
			}
		}
	}
	many := make([]any, 0, 10_000)
	for range 200 {
		many = append(many, "id:eq:"+w.Vars["nobody"])
	}
	l.refused(t, w, map[string]any{"filter": many}, "INVALID_FILTER", "VALIDATION_FAILED")
	sorts := make([]any, 0, 500)
	for range 500 {
		sorts = append(sorts, "id:asc")
	}
	l.refused(t, w, map[string]any{"sort": sorts}, "INVALID_SORT", "VALIDATION_FAILED")
	for _, sort := range []string{"password_hash", "idp_subject:desc", "id;DROP", "(select 1)", "1", "account_id::text", "id:sideways"} {
		l.refused(t, w, map[string]any{"sort": []any{sort}}, "INVALID_SORT", "VALIDATION_FAILED")
	}
	for _, token := range []string{"x", "AAAA", strings.Repeat("A", 900), "' OR 1=1", "////"} {
		l.refused(t, w, map[string]any{"page_token": token}, "INVALID_PAGE", "VALIDATION_FAILED")
	}
}

func (l list) refusedOrOwn(t *testing.T, w *world.World, params map[string]any) {
	t.Helper()
	got := l.ask(t, w, "owner", params)
	found := leaked(got, ids(w.Vars, "", params))
	l.check(t, got.Reason != internal && len(found) == 0, "%.200s: %s, leaks %v", l.where(params), got.Reason, found)
}

func (l list) refused(t *testing.T, w *world.World, params map[string]any, reasons ...string) {
	t.Helper()
	got := l.ask(t, w, "owner", params)
	for _, r := range reasons {
		if got.Reason == r {
			l.check(t, true, "")
			return
		}
	}
	l.check(t, false, "%.200s: want %v, got %q", l.where(params), reasons, got.Reason)
}

// tokens replays the next page of one caller as another, and with another query.
func (l list) tokens(t *testing.T, w *world.World) {
	t.Helper()
	first := l.ask(t, w, "owner", map[string]any{"limit": 1})
	v, _ := wire.Lookup(first.Body, "meta.next_page_token")
	token, _ := v.(string)
	if token == "" {
		return
	}
	own := l.ask(t, w, "owner", map[string]any{"limit": 1, "page_token": token})
	l.check(t, own.Reason == "", "%s: the owner's own token answers %s", l.where("token"), own.Reason)
	for _, as := range []string{"outsider", "both"} {
		got := l.ask(t, w, as, map[string]any{"limit": 1, "page_token": token})
		l.check(t, got.Reason == "INVALID_PAGE" || got.Reason == "NOT_FOUND" || as == "both" && got.Reason == "", "%s as %s: a token of another caller answers %q", l.where("token"), as, got.Reason)
		if as == "outsider" {
			found := leaked(got, ids(w.Vars, foreign, map[string]any{}))
			l.check(t, len(found) == 0, "%s: leaks %v", l.where("token"), found)
		}
	}
	got := l.ask(t, w, "owner", map[string]any{"limit": 1, "page_token": token, "filter": []any{"account_id:eq:" + w.Vars["foreign_account_id"]}})
	l.check(t, got.Reason == "INVALID_PAGE" || got.Reason == "INVALID_FILTER", "%s: a token with another filter answers %q", l.where("token"), got.Reason)
}
