package app_test

import (
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/services/messaging"
	"github.com/turumba/turumba/services/messaging/channel"
)

// TestUnsubscribeLinks: each recipient of a send has a link of their own in the header and
// in the text; a single message has none in its header.
func TestUnsubscribeLinks(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.publicURL = "https://mail.example.org"
	w.people(3, nil)
	w.template.Body = "Dear {FIRST_NAME}, to leave: {UNSUBSCRIBE_URL}"
	_, err := w.store.UpdateTemplate(t.Context(), []string{w.account}, w.template.ID, func(tm *messaging.Template) error {
		tm.Body = w.template.Body
		return tm.Prepare()
	})
	require.NoError(t, err)
	var mu sync.Mutex
	got := map[string]channel.Message{}
	w.provider.set(func(m channel.Message) channel.Result {
		mu.Lock()
		defer mu.Unlock()
		got[m.To] = m
		return accepted(m)
	})
	id := w.queue()
	w.start()
	require.EqualValues(t, 3, w.final(id).Sent)
	single := w.single("single@example.org")
	w.create(single)
	w.becomes(single, messaging.MessageSent)

	mu.Lock()
	defer mu.Unlock()
	require.Empty(t, got["single@example.org"].Headers)
	for _, to := range []string{"p0@example.org", "p1@example.org", "p2@example.org"} {
		m := got[to]
		require.Len(t, m.Headers, 2)
		require.Equal(t, channel.Header{Name: "List-Unsubscribe-Post", Value: "List-Unsubscribe=One-Click"}, m.Headers[1])
		link := strings.Trim(m.Headers[0].Value, "<>")
		require.Contains(t, m.Text, "to leave: "+link, "the same link in the text")
		require.True(t, strings.HasPrefix(link, "https://mail.example.org/unsubscribe/"))
	}
	require.NotEqual(t, got["p0@example.org"].Headers, got["p1@example.org"].Headers)
}
