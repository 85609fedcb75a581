package messaging

import (
	"errors"
	"iter"
)

var errEnough = errors.New("no more members are needed")

// Members walks the members of left-out groups beside the recipients of a send: both
// come in order of contact id, so neither list is ever in memory.
type Members struct {
	next    func() (string, bool)
	stop    func()
	current string
	more    bool
	// err is why the walk ended early; what Has has said since then does not count.
	err error
}

// WalkMembers begins with the first that stream gives, which calls each with stretches
// of them. The caller must stop it.
func WalkMembers(stream func(each func([]Recipient) error) error) *Members {
	m := &Members{}
	m.next, m.stop = iter.Pull(func(yield func(string) bool) {
		err := stream(func(list []Recipient) error {
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

// Stop ends the walk; nil has none.
func (m *Members) Stop() {
	if m != nil {
		m.stop()
	}
}

// Has reports whether the contact is a member; nil has none. The contacts asked for must
// ascend.
func (m *Members) Has(contactID string) bool {
	if m == nil {
		return false
	}
	for m.more && m.current < contactID {
		m.current, m.more = m.next()
	}
	return m.more && m.current == contactID
}

// Failed is why the walk ended early, if it did.
func (m *Members) Failed() error {
	if m == nil {
		return nil
	}
	return m.err
}
