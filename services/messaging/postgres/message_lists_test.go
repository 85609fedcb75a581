package postgres

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/kit/query"
	"github.com/turumba/turumba/services/messaging"
)

// TestListsLeanOnSends: what a list finds through sends and the pages of their addresses
// is what the messages say.
func TestListsLeanOnSends(t *testing.T) {
	t.Parallel()
	a := newArchive(t)
	// Two sends to a@example.org and b@example.org, of which the first has ended, and
	// single messages of which one has.
	a.sent("SECRET-one")
	a.end()
	a.clock.Advance(time.Minute)
	second := a.sent("SECRET-two")
	done := a.single("done", "", "A@example.org")
	a.single("waits", "", "ab@example.org")
	a.becomes(done, messaging.MessageSent, "")
	today := "created_at:range:" + a.clock.Now().Add(-12*time.Hour).Format(time.RFC3339) + "," + a.clock.Now().Add(12*time.Hour).Format(time.RFC3339)
	for _, c := range []struct {
		want    []string
		filters []string
	}{
		{[]string{"a@example.org", "ab@example.org", "b@example.org"}, []string{"status:eq:queued"}},
		{[]string{"a@example.org", "b@example.org"}, []string{"status:in:permanently_failed,delivered"}},
		{[]string{"A@example.org"}, []string{"status:eq:sent"}},
		{nil, []string{"status:in:scheduled,cancelled"}},
		{[]string{"A@example.org", "a@example.org", "a@example.org", "ab@example.org", "b@example.org", "b@example.org"}, []string{"channel_id:eq:" + a.channel.ID}},
		{nil, []string{"channel_id:eq:" + messaging.NewID()}},
		{[]string{"a@example.org", "b@example.org"}, []string{"template_id:eq:" + second.TemplateID}},
		{nil, []string{"direction:eq:inbound"}},
		{[]string{"a@example.org", "a@example.org"}, []string{"delivery_address:eq:a@example.org"}},
		{nil, []string{"delivery_address:eq:@example.org"}},
		{[]string{"A@example.org", "a@example.org", "a@example.org"}, []string{"delivery_address:icontains:A@EX"}},
		{[]string{"a@example.org", "a@example.org"}, []string{"delivery_address:contains:a@ex"}},
		{[]string{"a@example.org"}, []string{"delivery_address:icontains:a@ex", "status:eq:queued"}},
		{[]string{"a@example.org"}, []string{"delivery_address:icontains:A@ex", "group_message_id:eq:" + second.ID}},
	} {
		page, err := a.api.Messages(t.Context(), []string{a.account}, query.Request{Filters: append(c.filters, today), Limit: 10})
		require.NoError(t, err, c.filters)
		var got []string
		for _, m := range page.Data {
			got = append(got, m.DeliveryAddress)
		}
		slices.Sort(got)
		require.Equal(t, c.want, got, c.filters)
		require.EqualValues(t, len(c.want), page.Meta.GetTotal(), c.filters)
	}
}
