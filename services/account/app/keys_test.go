package app_test

import (
	"bytes"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/config"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/pg/pgtest"
	"github.com/turumba/turumba/kit/vault"
	account "github.com/turumba/turumba/services/account"
	"github.com/turumba/turumba/services/account/app"
	"github.com/turumba/turumba/services/account/identity"
	"github.com/turumba/turumba/services/account/identity/local"
	"github.com/turumba/turumba/services/account/postgres"
)

// TestRotateKeys: signing keys, second factors and waiting mails open with the new
// master key alone, and with the old one no more.
func TestRotateKeys(t *testing.T) {
	t.Parallel()
	d := pgtest.New(t, postgres.Migrations()...)
	store, err := postgres.New(d.Open(t, pg.RoleAPI), make([]byte, 32), "", account.Quotas{})
	require.NoError(t, err)
	admin, err := pgxpool.New(t.Context(), d.URL)
	require.NoError(t, err)
	t.Cleanup(admin.Close)
	open := func(keys ...byte) *vault.Vault {
		raw := [][]byte{}
		for _, k := range keys {
			raw = append(raw, bytes.Repeat([]byte{k}, 32))
		}
		v, err := vault.New(raw[0], raw[1:]...)
		require.NoError(t, err)
		return v
	}
	old, both, only := open(1), open(2, 1), open(2)
	keys := func(v *vault.Vault) error {
		_, err := identity.LoadKeys(t.Context(), identity.KeysConfig{Store: store, Vault: v, Clock: clock.System()})
		return err
	}
	require.NoError(t, keys(old))
	user, mail := uuid.NewString(), uuid.NewString()
	seal := func(aad vault.AAD) []byte {
		sealed, err := old.Seal(aad, []byte("secret"))
		require.NoError(t, err)
		return sealed
	}
	_, err = admin.Exec(t.Context(), "INSERT INTO users (id, email, idp_issuer, idp_subject, created_at, updated_at) VALUES ($1, 'a@example.org', 'local', 'a', now(), now())", user)
	require.NoError(t, err)
	_, err = admin.Exec(t.Context(), "INSERT INTO user_totp (user_id, secret, created_at) VALUES ($1, $2, now())", user, seal(local.TotpAAD(user)))
	require.NoError(t, err)
	_, err = admin.Exec(t.Context(), "INSERT INTO outgoing_mails (id, sealed, not_before, expires_at) VALUES ($1, $2, now(), now() + interval '1 day')", mail, seal(identity.MailAAD(mail)))
	require.NoError(t, err)

	kinds := func(changed, failed int) []vault.RotationKind {
		out := []vault.RotationKind{}
		for _, kind := range []string{"signing keys", "mails", "second factors"} {
			out = append(out, vault.RotationKind{Kind: kind, Seen: 1, Changed: changed, Failed: failed})
		}
		return out
	}
	for _, step := range []struct {
		vault           *vault.Vault
		dryRun          bool
		changed, failed int
	}{{both, true, 1, 0}, {only, false, 0, 1}, {both, false, 1, 0}, {both, false, 0, 0}, {only, false, 0, 0}, {old, true, 0, 1}} {
		r, err := app.RotateKeys(t.Context(), config.Secret(d.URL), step.vault, step.dryRun)
		require.NoError(t, err)
		require.Equal(t, kinds(step.changed, step.failed), r.Kinds)
	}
	require.NoError(t, keys(only))
	require.ErrorContains(t, keys(old), "does not open what was stored")
	for table, aad := range map[string]vault.AAD{
		"SELECT secret FROM user_totp": local.TotpAAD(user), "SELECT sealed FROM outgoing_mails": identity.MailAAD(mail),
	} {
		var sealed []byte
		require.NoError(t, admin.QueryRow(t.Context(), table).Scan(&sealed))
		got, err := only.Open(aad, sealed)
		require.NoError(t, err)
		require.Equal(t, "secret", string(got))
	}
}
