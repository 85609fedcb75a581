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

// former stores the channel's password as versions before ADR 0042 did: for its place alone.
func (c *channels) former(v *vault.Vault, of postgres.SealedChannel) {
	c.t.Helper()
	_, err := c.store.UpdateChannel(c.t.Context(), []string{of.AccountID}, of.ID, func(ch *messaging.Channel) (err error) {
		aad := vault.AAD{Account: ch.AccountID, Resource: ch.ID, Field: messaging.SecretPassword, Version: 1}
		ch.Sealed[messaging.SecretPassword], err = v.Seal(aad, []byte("secret of "+ch.ID))
		return err
	})
	require.NoError(c.t, err)
}

// TestSecretsOfEarlierVersions: a database in which every channel has a secret without its
// destination. Each is bound when it is used, however many use it at once; rotation binds
// the others, also where the master key stays; then nothing is left to do.
func TestSecretsOfEarlierVersions(t *testing.T) {
	t.Parallel()
	d := pgtest.New(t, postgres.Migrations()...)
	store, err := postgres.New(d.Open(t, pg.RoleAPI), make([]byte, 32), func() {})
	require.NoError(t, err)
	worker, err := postgres.New(d.Open(t, pg.RoleWorker), make([]byte, 32), func() {})
	require.NoError(t, err)
	c := &channels{t: t, store: store}
	v := newVault(t, 1)
	c.create(v, 12)
	for _, of := range c.ids {
		c.former(v, of)
	}
	_, err = c.open(t.Context(), v, c.ids[0])
	require.ErrorIs(t, err, vault.ErrUnbound)
	r, err := app.RotateKeys(t.Context(), config.Secret(d.URL), v, true)
	require.NoError(t, err)
	require.Equal(t, []vault.RotationKind{{Kind: "channels", Seen: 12, Changed: 12}}, r.Kinds)

	bind := func(s *postgres.Store, of postgres.SealedChannel) {
		ch, err := s.Channel(t.Context(), []string{of.AccountID}, of.ID)
		if err != nil {
			t.Error(err)
			return
		}
		if ch, err = s.BindSecrets(t.Context(), v, ch); err != nil {
			t.Error(err)
			return
		}
		settings, err := ch.Settings(v)
		if err != nil || settings.(channel.EmailSettings).Password.Reveal() != "secret of "+of.ID {
			t.Errorf("a secret of an earlier version: %v", err)
		}
	}
	var users sync.WaitGroup
	for _, of := range c.ids[:8] {
		for _, s := range []*postgres.Store{store, worker, store} {
			users.Go(func() { bind(s, of) })
		}
		users.Go(func() {
			_, err := store.UpdateChannel(t.Context(), []string{of.AccountID}, of.ID, func(ch *messaging.Channel) error {
				return ch.ChangeCredentials(v, clock.System().Now(), func(to *messaging.Credentials) (map[string]string, error) {
					to.FromName = "Office"
					return nil, nil
				})
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	users.Wait()
	r, err = app.RotateKeys(t.Context(), config.Secret(d.URL), v, false)
	require.NoError(t, err)
	require.Equal(t, []vault.RotationKind{{Kind: "channels", Seen: 12, Changed: 4}}, r.Kinds)
	for _, of := range c.ids {
		got, err := c.open(t.Context(), v, of)
		require.NoError(t, err)
		require.Equal(t, "secret of "+of.ID, got)
	}

	// One that no key opens stays as it is, and says so.
	c.former(newVault(t, 9), c.ids[0])
	ch, err := store.Channel(t.Context(), []string{c.ids[0].AccountID}, c.ids[0].ID)
	require.NoError(t, err)
	_, err = store.BindSecrets(t.Context(), v, ch)
	require.ErrorIs(t, err, vault.ErrUnknownKey)
	// It can be replaced, also for another destination.
	_, err = store.UpdateChannel(t.Context(), []string{ch.AccountID}, ch.ID, func(ch *messaging.Channel) error {
		return ch.ChangeCredentials(v, clock.System().Now(), func(to *messaging.Credentials) (map[string]string, error) {
			to.Host = "elsewhere.example.org"
			return map[string]string{messaging.SecretPassword: "new"}, nil
		})
	})
	require.NoError(t, err)
	got, err := c.open(t.Context(), v, c.ids[0])
	require.NoError(t, err)
	require.Equal(t, "new", got)
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
