package app

import (
	"context"

	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/config"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/vault"
	account "github.com/turumba/turumba/services/account"
	"github.com/turumba/turumba/services/account/identity"
	"github.com/turumba/turumba/services/account/identity/local"
	"github.com/turumba/turumba/services/account/postgres"
)

// resealPage is how many rows are listed at a time; each has a transaction of its own.
const resealPage = 200

// RotateKeys wraps everything that the service sealed by the vault's current key, while
// the service runs. It may be stopped and run again at any time; dryRun changes nothing.
func RotateKeys(ctx context.Context, url config.Secret, v *vault.Vault, dryRun bool) (vault.Rotation, error) {
	var r vault.Rotation
	db, err := pg.Open(ctx, pg.Config{URL: url.Reveal(), Role: pg.RoleAPI, Clock: clock.System(), Name: "keys-rotate", MaxConns: 2, Vault: v})
	if err != nil {
		return r, err
	}
	defer db.Close()
	store, err := postgres.New(db, make([]byte, 32), "", account.Quotas{}) // lists no pages and knows no issuer
	if err != nil {
		return r, err
	}
	for _, kind := range []struct {
		name string
		of   postgres.Sealed
		aad  func(id string) vault.AAD
	}{
		{"signing keys", postgres.SealedKeys, identity.KeyAAD},
		{"mails", postgres.SealedMails, identity.MailAAD},
		{"second factors", postgres.SealedTotp, local.TotpAAD},
	} {
		for after := ""; ; {
			ids, err := store.SealedIDs(ctx, kind.of, after, resealPage)
			if err != nil {
				return r, err
			}
			if len(ids) == 0 {
				break
			}
			for _, id := range ids {
				changed, err := store.Reseal(ctx, kind.of, id, !dryRun, func(sealed []byte) ([]byte, bool, error) { return v.Rewrap(kind.aad(id), sealed) })
				if err := r.Note(kind.name, changed, err); err != nil {
					return r, err
				}
				after = id
			}
		}
	}
	return r, db.ResealAnswers(ctx, !dryRun, func(changed bool, err error) error { return r.Note("answers", changed, err) })
}
