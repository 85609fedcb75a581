package account

import (
	"context"
	"errors"
	"fmt"

	"github.com/turumba/turumba/kit/address"
	"github.com/turumba/turumba/kit/apierr"
)

// Rekeyer is a store of contacts whose keys can be brought into today's form.
type Rekeyer interface {
	Contact(ctx context.Context, scope []string, id string) (*Contact, error)
	UpdateContact(ctx context.Context, scope []string, id string, change func(*Contact) error) (*Contact, error)
}

// Rekey brings the keys of a stored contact into the form that they have now. Where another
// contact has one of them, both stay as they are, the younger names the older as its
// DuplicateOfID, and duplicate is the younger one. A contact that is gone is no error.
func Rekey(ctx context.Context, store Rekeyer, accountID, id string) (duplicate string, err error) {
	scope := []string{accountID}
	_, err = store.UpdateContact(ctx, scope, id, func(c *Contact) error {
		c.rekey()
		return nil
	})
	if errors.Is(err, ErrNoContact) {
		return "", nil
	}
	var taken *apierr.Error
	if !errors.As(err, &taken) || taken.Meta["existing_id"] == "" {
		return "", err
	}
	return flag(ctx, store, scope, id, taken.Meta["existing_id"])
}

// rekey brings the keys into the form that Normalise gives new ones.
func (c *Contact) rekey() {
	c.stored = storedEmail{}
	ids := make(map[string]string, len(c.Identifiers))
	for platform, id := range c.Identifiers {
		if normal, err := address.ID(id); err == nil {
			id = normal
		}
		ids[platform] = id
	}
	if len(ids) > 0 {
		c.Identifiers = ids
	}
}

// flag makes the younger of two contacts name the older.
func flag(ctx context.Context, store Rekeyer, scope []string, one, other string) (string, error) {
	a, err := store.Contact(ctx, scope, one)
	if err != nil {
		return "", err
	}
	b, err := store.Contact(ctx, scope, other)
	if err != nil {
		return "", err
	}
	if a.CreatedAt.Before(b.CreatedAt) || a.CreatedAt.Equal(b.CreatedAt) && a.ID < b.ID {
		a, b = b, a
	}
	if a.DuplicateOfID == b.ID {
		return a.ID, nil
	}
	_, err = store.UpdateContact(ctx, scope, a.ID, func(c *Contact) error {
		c.DuplicateOfID = b.ID
		return nil
	})
	if err != nil {
		return "", fmt.Errorf("flag a duplicate: %w", err)
	}
	return a.ID, nil
}
