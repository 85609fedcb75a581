package postgres

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/vault"
	"github.com/turumba/turumba/services/messaging"
)

// serviceKeySize is the length of a key of the service itself.
const serviceKeySize = 32

// KeyAAD is the place of a key of the service itself.
func KeyAAD(name string) vault.AAD {
	return vault.AAD{Account: "platform", Resource: name, Field: "key", Version: 1}
}

// ServiceKey is a random key of the service that outlives the master key; it is made
// when it is first asked for.
func (s *Store) ServiceKey(ctx context.Context, v *vault.Vault, name string) ([]byte, error) {
	sealed, err := s.sealedKey(ctx, name, func() ([]byte, error) {
		key := make([]byte, serviceKeySize)
		_, _ = rand.Read(key) // it never fails on supported systems
		return v.Seal(KeyAAD(name), key)
	})
	if err != nil {
		return nil, err
	}
	key, err := v.Open(KeyAAD(name), sealed)
	if err != nil {
		return nil, fmt.Errorf("TURUMBA_MASTER_KEY does not open what was stored in this database: %w", err)
	}
	return key, nil
}

// sealedKey is the sealed key of this name, made by fresh if there is none. Whoever is
// second gets the key of the first.
func (s *Store) sealedKey(ctx context.Context, name string, fresh func() ([]byte, error)) (sealed []byte, err error) {
	err = s.db.InTx(ctx, nil, func(tx *pg.Tx) error {
		err := tx.QueryRow(ctx, "SELECT sealed FROM sealed_keys WHERE name = $1", name).Scan(&sealed)
		if err == nil || !errors.Is(err, pgx.ErrNoRows) {
			return err
		}
		made, err := fresh()
		if err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, "INSERT INTO sealed_keys (name, sealed) VALUES ($1, $2) ON CONFLICT DO NOTHING", name, made); err != nil {
			return fmt.Errorf("store the key: %w", err)
		}
		return tx.QueryRow(ctx, "SELECT sealed FROM sealed_keys WHERE name = $1", name).Scan(&sealed)
	})
	if err != nil {
		return nil, fmt.Errorf("read key %s: %w", name, err)
	}
	return sealed, nil
}

// SealedKeys are the names of all sealed keys.
func (s *Store) SealedKeys(ctx context.Context) ([]string, error) {
	rows, err := s.db.Query(ctx, "SELECT name FROM sealed_keys ORDER BY name")
	if err != nil {
		return nil, fmt.Errorf("list sealed keys: %w", err)
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// ResealKey stores what rewrap makes of a sealed key, unless it says that nothing
// changed or store is false.
func (s *Store) ResealKey(ctx context.Context, name string, store bool, rewrap func(sealed []byte) ([]byte, bool, error)) (changed bool, err error) {
	err = s.db.InTx(ctx, nil, func(tx *pg.Tx) error {
		var sealed []byte
		if err := tx.QueryRow(ctx, "SELECT sealed FROM sealed_keys WHERE name = $1 FOR UPDATE", name).Scan(&sealed); err != nil {
			return fmt.Errorf("read key %s: %w", name, err)
		}
		var again []byte
		if again, changed, err = rewrap(sealed); err != nil || !changed || !store {
			return err
		}
		if _, err := tx.Exec(ctx, "UPDATE sealed_keys SET sealed = $2 WHERE name = $1", name, again); err != nil {
			return fmt.Errorf("store key %s: %w", name, err)
		}
		return nil
	})
	return changed, err
}

// SealedChannel names a channel that has secrets.
type SealedChannel struct {
	ID        string
	AccountID string
}

// SealedChannels are the channels of all accounts that have secrets, by id, after one of
// them; the first has the zero UUID before it.
func (s *Store) SealedChannels(ctx context.Context, after string, most int) ([]SealedChannel, error) {
	rows, err := s.db.Query(ctx, "SELECT id, account_id FROM lookup.sealed_channels($1, $2)", after, most)
	if err != nil {
		return nil, fmt.Errorf("list sealed channels: %w", err)
	}
	return pgx.CollectRows(rows, pgx.RowToStructByName[SealedChannel])
}

// BindSecrets returns the channel as it can be used: secrets that versions before ADR 0042
// sealed without their destination are bound to the one that the row has, under its lock.
// Other channels come back as they are. A value that does not open is vault.ErrUnknownKey
// or vault.ErrCorrupt.
func (s *Store) BindSecrets(ctx context.Context, v *vault.Vault, c *messaging.Channel) (*messaging.Channel, error) {
	if !c.Unbound(v) {
		return c, nil
	}
	bound := c
	_, err := s.ResealChannel(ctx, SealedChannel{ID: c.ID, AccountID: c.AccountID}, true, func(locked *messaging.Channel) (bool, error) {
		bound = locked
		return locked.Rewrap(v)
	})
	return bound, err
}

// ResealChannel lets rewrap seal the channel's secrets anew and stores them, unless it
// says that nothing changed or store is false. What the secrets are stays, so nothing
// that works with them needs to notice; a channel that is gone changes nothing.
func (s *Store) ResealChannel(ctx context.Context, of SealedChannel, store bool, rewrap func(*messaging.Channel) (bool, error)) (changed bool, err error) {
	err = s.db.InTx(ctx, []string{of.AccountID}, func(tx *pg.Tx) error {
		c, err := lockOne[messaging.Channel](ctx, tx, errChannel, "SELECT "+channelColumns+" FROM channels WHERE account_id = $1 AND id = $2 FOR UPDATE", of.AccountID, of.ID)
		if err != nil {
			return ignore(err, errChannel)
		}
		if changed, err = rewrap(c); err != nil || !changed || !store {
			return err
		}
		if _, err := tx.Exec(ctx, "UPDATE channels SET sealed = $3 WHERE account_id = $1 AND id = $2", c.AccountID, c.ID, c.Sealed); err != nil {
			return fmt.Errorf("store the channel's secrets: %w", err)
		}
		return nil
	})
	return changed, err
}
