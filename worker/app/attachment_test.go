package app_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/services/messaging"
	"github.com/turumba/turumba/services/messaging/channel"
)

// attach adds a file to the template.
func (w *world) attach(filename, contentID, data string) *messaging.Attachment {
	w.t.Helper()
	a, err := messaging.NewAttachment(w.template, filename, contentID, []byte(data))
	require.NoError(w.t, err)
	w.tx(func(ctx context.Context, tx *pg.Tx) error { return w.store.AddAttachment(ctx, tx, a, []byte(data)) })
	return a
}

// TestFilesOfASend: every message carries the files that the template had when the send
// started, read once for each chunk; what nobody uses any more goes away.
func TestFilesOfASend(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.people(700, nil)
	logo := w.attach("logo.png", "logo", "\x89PNG\r\n\x1a\n logo")
	price := w.attach("prices.pdf", "", "%PDF-1.4 prices")
	unused := w.attach("unused.txt", "", "unused")
	scope, ctx := []string{w.account}, t.Context()
	require.NoError(t, w.store.DeleteAttachment(ctx, scope, w.template.ID, unused.ID))
	require.Equal(t, 2, w.count("SELECT count(*) FROM attachment_files"))
	var mu sync.Mutex
	seen := map[*channel.Attachment]bool{}
	w.provider.set(func(m channel.Message) channel.Result {
		mu.Lock()
		defer mu.Unlock()
		if len(m.Attachments) != 2 || m.Attachments[0].ContentID != "logo" || !strings.HasPrefix(string(m.Attachments[1].Base64()), "JVBERi0") {
			t.Errorf("wrong files: %+v", m.Attachments)
		}
		seen[m.Attachments[0]] = true
		return accepted(m)
	})
	w.provider.hold = make(chan struct{})
	id := w.queue()
	w.start()
	require.Eventually(t, func() bool { n, _ := w.provider.received(); return n > 0 }, patience, 5*time.Millisecond)
	// The template changes while the send runs.
	require.NoError(t, w.store.DeleteAttachment(ctx, scope, w.template.ID, price.ID))
	require.Equal(t, 2, w.count("SELECT count(*) FROM attachment_files"), "the send needs both")
	close(w.provider.hold)
	require.EqualValues(t, 700, w.final(id).Sent)
	require.Len(t, seen, 2, "once for each chunk")
	_, data, err := w.store.Attachment(ctx, scope, w.template.ID, logo.ID)
	require.NoError(t, err)
	require.Equal(t, "\x89PNG\r\n\x1a\n logo", string(data))
}

// TestFilesAreShared: the same bytes are stored once, and go when their last template
// does.
func TestFilesAreShared(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.attach("a.txt", "", "hello")
	w.attach("b.txt", "", "hello")
	require.Equal(t, 1, w.count("SELECT count(*) FROM attachment_files"))
	twin := w.template.Copy("Twin", "")
	w.tx(func(ctx context.Context, tx *pg.Tx) error {
		if err := w.store.CreateTemplate(ctx, tx, twin); err != nil {
			return err
		}
		return w.store.CopyAttachments(ctx, tx, w.template.ID, twin)
	})
	require.Len(t, twin.Attachments, 2)
	scope := []string{w.account}
	require.NoError(t, w.store.DeleteTemplate(t.Context(), scope, w.template.ID))
	require.Equal(t, 1, w.count("SELECT count(*) FROM attachment_files"))
	require.NoError(t, w.store.DeleteTemplate(t.Context(), scope, twin.ID))
	require.Zero(t, w.count("SELECT (SELECT count(*) FROM attachment_files) + (SELECT count(*) FROM template_attachments)"))
}
