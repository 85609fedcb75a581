package app_test

import (
	"bytes"
	"context"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/config"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/pg/pgtest"
	"github.com/turumba/turumba/kit/vault"
	"github.com/turumba/turumba/services/messaging"
	"github.com/turumba/turumba/services/messaging/app"
	"github.com/turumba/turumba/services/messaging/channel"
	"github.com/turumba/turumba/services/messaging/postgres"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, pgtest.Goleak()...) }

func newVault(t *testing.T, keys ...byte) *vault.Vault {
	t.Helper()
	raw := make([][]byte, len(keys))
	for i, k := range keys {
		raw[i] = bytes.Repeat([]byte{k}, 32)
	}
	v, err := vault.New(raw[0], raw[1:]...)
	require.NoError(t, err)
	return v
}

// channels are those of a few accounts, each with a secret.
type channels struct {
	t     *testing.T
	store *postgres.Store
	ids   []postgres.SealedChannel
}

func (c *channels) create(v *vault.Vault, n int) {
	c.t.Helper()
	for range n {
		ch := &messaging.Channel{
			ID: messaging.NewID(), AccountID: messaging.NewID(), Name: "Office", ChannelType: messaging.TypeEmail, Provider: messaging.ProviderSMTP,
			Status: messaging.ChannelConnected, IsEnabled: true, OnUnknown: messaging.UnknownHold, Connections: 1,
			Credentials: messaging.Credentials{SMTP: &messaging.SMTP{Host: "mail.example.org", Port: 587}},
		}
		require.NoError(c.t, ch.SetSecret(v, messaging.SecretPassword, "secret of "+ch.ID, clock.System().Now()))
		ctx := c.t.Context()
		require.NoError(c.t, c.store.DB().InTx(ctx, []string{ch.AccountID}, func(tx *pg.Tx) error { return c.store.CreateChannel(ctx, tx, ch, nil) }))
		c.ids = append(c.ids, postgres.SealedChannel{ID: ch.ID, AccountID: ch.AccountID})
	}
}

// open reads a channel's password as the dispatch does.
func (c *channels) open(ctx context.Context, v *vault.Vault, of postgres.SealedChannel) (string, error) {
	ch, err := c.store.Channel(ctx, []string{of.AccountID}, of.ID)
	if err != nil {
		return "", err
	}
	settings, err := ch.Settings(v)
	if err != nil {
		return "", err
	}
	return settings.(channel.EmailSettings).Password.Reveal(), nil
}

// TestRotateKeys seals everything anew while channels are read and changed, and then
// takes the old key away.
func TestRotateKeys(t *testing.T) {
	t.Parallel()
	d := pgtest.New(t, postgres.Migrations()...)
	store, err := postgres.New(d.Open(t, pg.RoleAPI), make([]byte, 32), func() {})
	require.NoError(t, err)
	c := &channels{t: t, store: store}
	old, both, only := newVault(t, 1), newVault(t, 2, 1), newVault(t, 2)
	c.create(old, 250)
	c.create(both, 5)
	key, err := store.ServiceKey(t.Context(), old, "unsubscribe")
	require.NoError(t, err)
	before, err := store.Channel(t.Context(), []string{c.ids[0].AccountID}, c.ids[0].ID)
	require.NoError(t, err)

	rotate := func(v *vault.Vault, dryRun bool) []vault.RotationKind {
		t.Helper()
		r, err := app.RotateKeys(t.Context(), config.Secret(d.URL), v, dryRun)
		require.NoError(t, err)
		return r.Kinds
	}
	want := []vault.RotationKind{{Kind: "service keys", Seen: 1, Changed: 1}, {Kind: "channels", Seen: 255, Changed: 250}}
	require.Equal(t, want, rotate(both, true))
	require.Equal(t, want, rotate(both, true), "a dry run changes nothing")
	require.Equal(t, 250, rotate(only, true)[1].Failed, "the old key is still needed")

	ctx, stop := context.WithCancel(t.Context())
	var load sync.WaitGroup
	for worker := range 3 {
		load.Go(func() {
			for i := worker; ctx.Err() == nil; i = (i + 7) % len(c.ids) {
				of := c.ids[i]
				got, err := c.open(ctx, both, of)
				if ctx.Err() == nil && (err != nil || got != "secret of "+of.ID) {
					t.Errorf("while keys are rotated: %q, %v", got, err)
					return
				}
				_, err = store.UpdateChannel(ctx, []string{of.AccountID}, of.ID, func(ch *messaging.Channel) error {
					return ch.SetSecret(both, messaging.SecretPassword, "secret of "+ch.ID, clock.System().Now())
				})
				if ctx.Err() == nil && err != nil {
					t.Errorf("while keys are rotated: %v", err)
					return
				}
			}
		})
	}
	rotate(both, false)
	stop()
	load.Wait()
	require.Zero(t, rotate(both, false)[1].Changed, "nothing is left to do")
	for _, of := range c.ids {
		got, err := c.open(t.Context(), only, of)
		require.NoError(t, err)
		require.Equal(t, "secret of "+of.ID, got)
	}
	again, err := store.ServiceKey(t.Context(), only, "unsubscribe")
	require.NoError(t, err)
	require.Equal(t, key, again)
	after, err := store.Channel(t.Context(), []string{c.ids[0].AccountID}, c.ids[0].ID)
	require.NoError(t, err)
	require.Equal(t, before.Name, after.Name)
}

// TestRotationIsNotNoticed: a rotation alone changes nothing that a running send looks
// at.
func TestRotationIsNotNoticed(t *testing.T) {
	t.Parallel()
	d := pgtest.New(t, postgres.Migrations()...)
	store, err := postgres.New(d.Open(t, pg.RoleAPI), make([]byte, 32), func() {})
	require.NoError(t, err)
	c := &channels{t: t, store: store}
	c.create(newVault(t, 1), 1)
	read := func() *messaging.Channel {
		ch, err := store.Channel(t.Context(), []string{c.ids[0].AccountID}, c.ids[0].ID)
		require.NoError(t, err)
		return ch
	}
	before := read()
	_, err = app.RotateKeys(t.Context(), config.Secret(d.URL), newVault(t, 2, 1), false)
	require.NoError(t, err)
	after := read()
	require.NotEqual(t, before.Sealed, after.Sealed)
	after.Sealed = before.Sealed
	require.Equal(t, before, after)
}
