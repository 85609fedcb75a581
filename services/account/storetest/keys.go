package storetest

import (
	"github.com/stretchr/testify/require"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	account "github.com/turumba/turumba/services/account"
)

// spellings: a mailbox is kept as it was written, is one whatever its spelling, and is found
// and changed by any.
func spellings(f *fixture) {
	c := &account.Contact{Name: "Ada", Email: "Kontakt@M\u00fcnchen.example"}
	f.create(f.mine, c)
	require.Equal(f.t, "Kontakt@M\u00fcnchen.example", f.get(f.mine, c.ID).Email)
	for _, spelling := range []string{"kontakt@m\u00fcnchen.example", "KONTAKT@XN--MNCHEN-3YA.example", "kontakt@mu\u0308nchen.example", "Kontakt@M\u00fcnchen.example"} {
		require.Equal(f.t, []string{"Ada"}, f.list(f.mine, "email:eq:"+spelling), spelling)
		require.Equal(f.t, c.ID, f.holder(errorv1.Reason_REASON_DUPLICATE_EMAIL, f.createOne(f.ctx, f.mine, &account.Contact{Name: "Other", Email: spelling})), spelling)
		_, err := f.Contacts.UpdateContact(f.ctx, []string{f.mine}, c.ID, func(c *account.Contact) error {
			stored := *c
			c.Email = spelling
			return c.Normalise("", &stored)
		})
		require.NoError(f.t, err)
		require.Equal(f.t, spelling, f.get(f.mine, c.ID).Email, "the spelling may change")
	}
	other := &account.Contact{Name: "Bea", Email: "bea@x.example"}
	f.create(f.mine, other)
	_, err := f.Contacts.UpdateContact(f.ctx, []string{f.mine}, other.ID, func(c *account.Contact) error {
		stored := *c
		c.Email = "kontakt@m\u00fcnchen.example"
		return c.Normalise("", &stored)
	})
	require.Equal(f.t, c.ID, f.holder(errorv1.Reason_REASON_DUPLICATE_EMAIL, err))
}

// rekeys: contacts that were stored before ids were normalised are brought over; of two that
// turn out to be one person's the younger names the older, once, and can be changed.
func rekeys(f *fixture) {
	alone := &account.Contact{Name: "Alone", Identifiers: map[string]string{"telegram": " 77 "}}
	older := &account.Contact{Name: "Older", Identifiers: map[string]string{"telegram": "\u0664\u0662"}}
	younger := &account.Contact{Name: "Younger", Identifiers: map[string]string{"telegram": "42"}}
	first := &account.Contact{Name: "First", Identifiers: map[string]string{"whatsapp": "7"}}
	second := &account.Contact{Name: "Second", Identifiers: map[string]string{"whatsapp": "7\u200e"}, Phone: "+251911000001"}
	for _, c := range []*account.Contact{alone, older, younger, first, second} {
		f.create(f.mine, c)
	}
	for range 2 { // a second time finds the same
		for c, want := range map[*account.Contact]string{alone: "", older: younger.ID, second: second.ID} {
			duplicate, err := account.Rekey(f.ctx, f.Contacts, f.mine, c.ID)
			require.NoError(f.t, err)
			require.Equal(f.t, want, duplicate, c.Name)
		}
	}
	require.Equal(f.t, "77", f.get(f.mine, alone.ID).Identifiers["telegram"])
	require.Equal(f.t, []string{"Second", "Younger"}, f.list(f.mine, "duplicate_of_id:is_not_null"))
	require.Equal(f.t, []string{"Younger"}, f.list(f.mine, "duplicate_of_id:eq:"+older.ID))
	require.Equal(f.t, first.ID, f.get(f.mine, second.ID).DuplicateOfID)

	change := func(id string, do func(*account.Contact)) error {
		_, err := f.Contacts.UpdateContact(f.ctx, []string{f.mine}, id, func(c *account.Contact) error {
			stored := *c
			do(c)
			return c.Normalise("", &stored)
		})
		return err
	}
	require.NoError(f.t, change(second.ID, func(c *account.Contact) { c.Name = "Second again" }), "another field")
	require.Equal(f.t, first.ID, f.get(f.mine, second.ID).DuplicateOfID)
	require.Equal(f.t, first.ID, f.holder(errorv1.Reason_REASON_DUPLICATE_IDENTIFIER, change(second.ID, func(c *account.Contact) {
		c.Identifiers = map[string]string{"whatsapp": "7 "}
	})))
	require.NoError(f.t, change(second.ID, func(c *account.Contact) { c.Identifiers = nil }))
	require.Empty(f.t, f.get(f.mine, second.ID).DuplicateOfID, "it is one no more")

	duplicate, err := account.Rekey(f.ctx, f.Contacts, f.mine, account.NewID())
	require.NoError(f.t, err, "one that is gone")
	require.Empty(f.t, duplicate)
}
