package account_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/kit/apierr"
	account "github.com/turumba/turumba/services/account"
)

func TestUpsert(t *testing.T) {
	t.Parallel()
	ann := func() *account.Contact {
		return &account.Contact{ID: "ann", Name: "Ann", Email: "ann@x.example", Phone: "+1", Tags: []string{"old"}, Metadata: json.RawMessage(`{"a":1}`)}
	}
	bob := func() *account.Contact { return &account.Contact{ID: "bob", Name: "Bob", ExternalID: "7"} }
	all := account.DefaultMatchBy()
	for _, c := range []struct {
		name    string
		matchBy []account.ContactKey
		rows    []account.Contact
		want    string // c(reated), u(pdated) or the reason, for each row
		changed int
	}{
		{"new", all, []account.Contact{{Name: "C"}, {Name: "C"}}, "c c", 0},
		{"by e-mail", all, []account.Contact{{Email: "ann@x.example", Name: "Anna"}}, "u", 1},
		{"nothing new", all, []account.Contact{{Email: "ann@x.example", Name: "Ann", Tags: []string{"old"}}}, "u", 0},
		{"twice the same contact", all, []account.Contact{{Phone: "+1", Name: "x"}, {Email: "ann@x.example", Name: "y"}}, "u u", 1},
		{"made by a row before", all, []account.Contact{{Phone: "+2"}, {Phone: "+2", Email: "d@x.example"}, {Email: "d@x.example"}}, "c u u", 0},
		{"the phone of one and the id of another", all, []account.Contact{{Phone: "+1", ExternalID: "7"}}, "DUPLICATE_PHONE", 0},
		{"the e-mail of another", []account.ContactKey{account.KeyPhone}, []account.Contact{{Phone: "+3", Email: "ann@x.example"}}, "DUPLICATE_EMAIL", 0},
		{"a key moves on", all, []account.Contact{{ExternalID: "7", Phone: "+9"}, {Phone: "+9", Name: "B"}, {Phone: "+1", Email: "new@x.example"}, {Email: "ann@x.example"}}, "u u u c", 2},
		{"a platform's id", all, []account.Contact{{Identifiers: map[string]string{"telegram": "5"}}, {Identifiers: map[string]string{"telegram": "5"}}}, "c DUPLICATE_IDENTIFIER", 0},
	} {
		u := account.NewUpsert(c.matchBy, []*account.Contact{ann(), bob()}, account.Room{})
		var got []string
		for i := range c.rows {
			before := c.rows[i]
			_, created, err := u.Add(&c.rows[i])
			switch {
			case err != nil:
				got = append(got, apierr.Name(apierr.From(err).Reason))
			case created:
				got = append(got, "c")
			default:
				got = append(got, "u")
			}
			require.Equal(t, before, c.rows[i], "%s: a row that is tried again must be as it was", c.name)
		}
		require.Equal(t, c.want, strings.Join(got, " "), c.name)
		require.Len(t, u.Created, strings.Count(" "+c.want, " c"), c.name)
		require.Len(t, u.Changed, c.changed, c.name)
	}
}

func TestUpsertInTheRoomThereIs(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		room account.Room
		want string // c(reated), u(pdated) or the reason, for each row
	}{
		{"no limit", account.Room{}, "c u c c"},
		{"enough", account.Room{Most: 9, Left: 3}, "c u c c"},
		{"for two", account.Room{Most: 9, Left: 2}, "c u c QUOTA_EXCEEDED"},
		{"for none: contacts still change", account.Room{Most: 9}, "QUOTA_EXCEEDED u QUOTA_EXCEEDED QUOTA_EXCEEDED"},
		{"less than none: the limit was lowered", account.Room{Most: 1, Left: -8}, "QUOTA_EXCEEDED u QUOTA_EXCEEDED QUOTA_EXCEEDED"},
	} {
		u := account.NewUpsert(account.DefaultMatchBy(), []*account.Contact{{ID: "ann", Email: "ann@x.example"}}, c.room)
		rows := []account.ImportRow{}
		for i, email := range []string{"b@x.example", "ann@x.example", "c@x.example", "d@x.example"} {
			rows = append(rows, account.ImportRow{Line: i, Contact: &account.Contact{Email: email, Name: "N"}})
		}
		var got []string
		for i := range rows {
			_, created, err := u.Add(rows[i].Contact)
			got = append(got, map[bool]string{true: "c", false: "u"}[created])
			if err != nil {
				got[i] = apierr.Name(apierr.From(err).Reason)
			}
		}
		require.Equal(t, c.want, strings.Join(got, " "), c.name)
	}
}

func TestMerge(t *testing.T) {
	t.Parallel()
	c := &account.Contact{Name: "Ann", Email: "a@x.example", Tags: []string{"b"}, Identifiers: map[string]string{"telegram": "1"}, Metadata: json.RawMessage(`{"a":1,"b":{"c":2}}`)}
	require.NoError(t, c.Merge(&account.Contact{LastName: "Lee", Tags: []string{"a", "b"}, Identifiers: map[string]string{"whatsapp": "2"}, Metadata: json.RawMessage(`{"b":3,"d":null}`)}))
	require.Equal(t, []string{"a", "b"}, c.Tags)
	require.Equal(t, map[string]string{"telegram": "1", "whatsapp": "2"}, c.Identifiers)
	require.JSONEq(t, `{"a":1,"b":3,"d":null}`, string(c.Metadata))
	require.Equal(t, "a@x.example", c.Email)
	var many []string
	for i := range account.MaxTags {
		many = append(many, fmt.Sprint("t", i))
	}
	require.ErrorContains(t, c.Merge(&account.Contact{Tags: many}), "not valid")
	large := json.RawMessage(`{"x":"` + strings.Repeat("x", account.MaxMetadata-50) + `"}`)
	require.NoError(t, (&account.Contact{}).Merge(&account.Contact{Metadata: large}))
	require.Error(t, (&account.Contact{Metadata: json.RawMessage(`{"y":"` + strings.Repeat("y", 100) + `"}`)}).Merge(&account.Contact{Metadata: large}))
}
