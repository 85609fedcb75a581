package fanout

import (
	"context"
	"errors"
	"iter"

	"github.com/turumba/turumba/services/messaging"
	"github.com/turumba/turumba/services/messaging/postgres"
)

var errEnough = errors.New("no more members are needed")

// members walks the members of the excluded groups beside the recipients: both come
// in order of contact id, so neither list is ever in memory.
type members struct {
	next    func() (string, bool)
	stop    func()
	current string
	more    bool
	// err is why the walk ended early; what has said since then does not count.
	err error
}

// walk begins after cursor. The caller must stop it.
func walk(ctx context.Context, d Directory, accountID string, groupIDs []string, cursor string) *members {
	m := &members{}
	m.next, m.stop = iter.Pull(func(yield func(string) bool) {
		if len(groupIDs) == 0 {
			return
		}
		err := d.Recipients(ctx, accountID, groupIDs, cursor, postgres.MaxChunk, func(list []messaging.Recipient) error {
			for _, r := range list {
				if !yield(r.ContactID) {
					return errEnough
				}
			}
			return nil
		})
		if !errors.Is(err, errEnough) {
			m.err = err
		}
	})
	m.current, m.more = m.next()
	return m
}

// has reports whether the contact is a member; nil has none. The contacts asked for must
// ascend.
func (m *members) has(contactID string) bool {
	if m == nil {
		return false
	}
	for m.more && m.current < contactID {
		m.current, m.more = m.next()
	}
	return m.more && m.current == contactID
}

// failed is why the walk ended early, if it did.
func (m *members) failed() error {
	if m == nil {
		return nil
	}
	return m.err
}
