package app

import (
	"context"

	"github.com/google/uuid"

	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/config"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/vault"
	"github.com/turumba/turumba/services/messaging"
	"github.com/turumba/turumba/services/messaging/postgres"
)

// resealPage is how many channels are listed at a time; each has a transaction of its
// own.
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
	store, err := postgres.New(db, make([]byte, 32), func() {}) // lists no pages
	if err != nil {
		return r, err
	}
	names, err := store.SealedKeys(ctx)
	if err != nil {
		return r, err
	}
	for _, name := range names {
		changed, err := store.ResealKey(ctx, name, !dryRun, func(sealed []byte) ([]byte, bool, error) { return v.Rewrap(postgres.KeyAAD(name), sealed) })
		if err := r.Note("service keys", changed, err); err != nil {
			return r, err
		}
	}
	if err := rotateChannels(ctx, store, v, dryRun, &r); err != nil {
		return r, err
	}
	return r, db.ResealAnswers(ctx, !dryRun, func(changed bool, err error) error { return r.Note("answers", changed, err) })
}

func rotateChannels(ctx context.Context, store *postgres.Store, v *vault.Vault, dryRun bool, r *vault.Rotation) error {
	after := uuid.Nil.String()
	for {
		page, err := store.SealedChannels(ctx, after, resealPage)
		if err != nil || len(page) == 0 {
			return err
		}
		for _, c := range page {
			changed, err := store.ResealChannel(ctx, c, !dryRun, func(c *messaging.Channel) (bool, error) { return c.Rewrap(v) })
			if err := r.Note("channels", changed, err); err != nil {
				return err
			}
			after = c.ID
		}
	}
}
