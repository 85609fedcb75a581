package app_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/kit/vault"
	"github.com/turumba/turumba/services/messaging"
)

// TestSecretsOfEarlierVersionsAreBound: a channel whose secret an earlier version stored
// without its destination sends, and its secret is bound by that (ADR 0042). One that no
// key opens rests with the reason.
func TestSecretsOfEarlierVersionsAreBound(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	former := func(master []byte, of *messaging.Channel) {
		t.Helper()
		v, err := vault.New(master)
		require.NoError(t, err)
		_, err = w.store.UpdateChannel(t.Context(), []string{w.account}, of.ID, func(c *messaging.Channel) (err error) {
			aad := vault.AAD{Account: c.AccountID, Resource: c.ID, Field: messaging.SecretPassword, Version: 1}
			c.Sealed[messaging.SecretPassword], err = v.Seal(aad, []byte("secret"))
			return err
		})
		require.NoError(t, err)
	}
	former(masterKey, w.channel)
	lost := w.another(0)
	former(make([]byte, 32), lost)
	good, bad := w.single("a@example.org"), w.single("b@example.org", func(m *messaging.Message) { m.ChannelID = lost.ID })
	w.create(good, bad)
	w.start()
	w.becomes(good, messaging.MessageSent)
	v, err := vault.New(masterKey)
	require.NoError(t, err)
	c := w.reread(w.channel)
	require.False(t, c.Unbound(v))
	_, err = c.Settings(v)
	require.NoError(t, err)
	require.Eventually(t, func() bool { return w.reread(lost).Status == messaging.ChannelError }, patience, 5*time.Millisecond)
	require.Contains(t, w.reread(lost).ErrorMessage, "settings cannot be used")
	require.True(t, w.reread(lost).Unbound(v), "what does not open stays as it is")
}
