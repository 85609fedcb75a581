package storetest

import (
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	accountv1 "github.com/turumba/turumba/gen/turumba/account/v1"
	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/pg"
	account "github.com/turumba/turumba/services/account"
)

func keepsEveryField(f *fixture) {
	want := &account.Contact{
		Name: "Abebe Bikila", FirstName: "Abebe", LastName: "Bikila", Email: "abebe@example.org", Phone: "+251911223344",
		Tags: []string{"a", "b"}, Language: "am", Timezone: "Africa/Addis_Ababa", Metadata: object(map[string]any{"shoe": 42.5, "barefoot": true, "club": nil, "x": map[string]any{"y": []int{1}}}),
		ExternalID: "E-1", PreferredChannelType: "telegram", Identifiers: map[string]string{"telegram": "4711", "messenger": "m-1"},
	}
	sent := *want
	f.create(f.mine, &sent)
	got := f.get(f.mine, sent.ID)
	require.JSONEq(f.t, string(want.Metadata), string(got.Metadata))
	require.WithinDuration(f.t, sent.CreatedAt, got.CreatedAt, 0)
	require.WithinDuration(f.t, sent.UpdatedAt, got.UpdatedAt, 0)
	want.ID, want.AccountID, want.CreatedAt, want.UpdatedAt, want.Metadata = sent.ID, f.mine, got.CreatedAt, got.UpdatedAt, got.Metadata
	require.Equal(f.t, want, got)

	least := &account.Contact{Phone: "+251911000000"}
	f.create(f.mine, least)
	got = f.get(f.mine, least.ID)
	require.Empty(f.t, got.Email)
	require.Empty(f.t, got.Tags)
	require.Empty(f.t, got.Metadata)
	require.Empty(f.t, got.Identifiers)
}

// dataIsData stores what some databases would run (S-72).
func dataIsData(f *fixture) {
	evil := map[string]any{
		"$where": "sleep(5000)", "$gt": "", "a.$b": 1, "dotted.key": "v", "__proto__": map[string]any{"$ne": nil}, "": "empty",
		"constructor": "x", "$set": map[string]any{"account_id": f.other},
	}
	c := &account.Contact{Name: `{"$gt":""}`, FirstName: "$where", Email: `"$ne"@example.org`, ExternalID: `{"$regex":"(a+)+$"}`, Tags: []string{"$in", "a.b"}, Metadata: object(evil)}
	f.create(f.mine, c)
	f.create(f.mine, &account.Contact{Name: "Bystander", ExternalID: "other", Metadata: object(map[string]any{"k": "v"})})
	got := f.get(f.mine, c.ID)
	require.JSONEq(f.t, string(object(evil)), string(got.Metadata))
	require.Equal(f.t, c.ExternalID, got.ExternalID)
	for _, filter := range []string{
		`external_id:eq:{"$regex":"(a+)+$"}`, `name:eq:{"$gt":""}`, "first_name:eq:$where", "tags:eq:$in", "tags:eq:a.b",
		"metadata.$where:eq:sleep(5000)", "metadata.a.$b:eq:1", "metadata.dotted.key:eq:v", "metadata.$gt:eq:",
	} {
		require.Equal(f.t, []string{c.Name}, f.list(f.mine, filter), filter)
	}
	for _, filter := range []string{
		`external_id:eq:{"$ne":null}`, `name:contains:{"$regex":".*"}`, `name:eq:{"$exists":true}`, "metadata.$where:eq:1", "metadata.$or:eq:[]",
		`metadata.k:eq:{"$ne":""}`, `email:eq:{"$gt":""}`, "tags:in:{$ne:1},$nin",
	} {
		require.Empty(f.t, f.list(f.mine, filter), filter)
	}
}

func duplicates(f *fixture) {
	first := &account.Contact{
		Name: "First", Email: "x@example.org", Phone: "+251911223344", ExternalID: "E",
		Identifiers: map[string]string{"telegram": "t", "whatsapp": "w", "messenger": "m"},
	}
	f.create(f.mine, first)
	for name, c := range map[string]struct {
		contact account.Contact
		reason  errorv1.Reason
	}{
		"email":       {account.Contact{Email: "x@example.org"}, errorv1.Reason_REASON_DUPLICATE_EMAIL},
		"phone":       {account.Contact{Phone: "+251911223344"}, errorv1.Reason_REASON_DUPLICATE_PHONE},
		"external id": {account.Contact{ExternalID: "E"}, errorv1.Reason_REASON_DUPLICATE_IDENTIFIER},
		"telegram":    {account.Contact{Identifiers: map[string]string{"telegram": "t"}}, errorv1.Reason_REASON_DUPLICATE_IDENTIFIER},
		"whatsapp":    {account.Contact{Identifiers: map[string]string{"whatsapp": "w"}}, errorv1.Reason_REASON_DUPLICATE_IDENTIFIER},
		"messenger":   {account.Contact{Identifiers: map[string]string{"messenger": "m"}}, errorv1.Reason_REASON_DUPLICATE_IDENTIFIER},
		"two at once": {account.Contact{Phone: "+251911223344", Email: "x@example.org"}, errorv1.Reason_REASON_DUPLICATE_EMAIL},
	} {
		c.contact.Name = name
		err := f.createOne(f.ctx, f.mine, &c.contact)
		require.Equal(f.t, first.ID, f.holder(c.reason, err), name)
		c.contact.ID = ""
		f.create(account.NewID(), &c.contact) // another account never matters
	}
	require.Equal(f.t, []string{"First"}, f.list(f.mine), "what is refused leaves nothing")
	// What was refused with one key has not taken the others.
	require.Error(f.t, f.createOne(f.ctx, f.mine, &account.Contact{Name: "Half", Email: "x@example.org", Phone: "+251911999999"}))
	f.create(f.mine, &account.Contact{Name: "Whole", Phone: "+251911999999"})
}

func batch(f *fixture) {
	f.create(f.mine, &account.Contact{Name: "Old", Email: "old@x.example"})
	list := []*account.Contact{
		{Name: "A", Email: "a@x.example"},
		{Name: "B", Email: "old@x.example", Phone: "+251911000001"}, // refused
		{Name: "C", Email: "a@x.example"},                           // as A
		{Name: "D", Phone: "+251911000001"},                         // B wanted it and did not get it
		{Name: "E"},
	}
	errs := f.tryCreate(f.ctx, f.mine, list...)
	require.NoError(f.t, errs[0])
	f.reason(errorv1.Reason_REASON_DUPLICATE_EMAIL, errs[1])
	require.Equal(f.t, list[0].ID, f.holder(errorv1.Reason_REASON_DUPLICATE_EMAIL, errs[2]))
	require.NoError(f.t, errs[3])
	require.NoError(f.t, errs[4])
	require.Equal(f.t, []string{"A", "D", "E", "Old"}, f.list(f.mine))
}

func rivals(f *fixture) {
	var made sync.Map
	atOnce(50, func(i int) {
		c := &account.Contact{Name: fmt.Sprintf("Rival %d", i), Email: "one@example.org"}
		if err := f.createOne(f.ctx, f.mine, c); err == nil {
			made.Store(c.ID, true)
		} else if e := apierr.From(err); e.Reason != errorv1.Reason_REASON_DUPLICATE_EMAIL && e.Reason != errorv1.Reason_REASON_CONFLICT {
			made.Store(err.Error(), true)
		}
	})
	require.Len(f.t, f.list(f.mine), 1)
	made.Range(func(id, _ any) bool {
		require.Equal(f.t, "one@example.org", f.get(f.mine, fmt.Sprint(id)).Email)
		return true
	})
}

func repeatedCall(f *fixture) {
	one := &account.Contact{Name: "One", Email: "one@example.org"}
	require.NoError(f.t, f.createOne(f.withKey("k", "body"), f.mine, one))
	var replay *pg.ReplayError
	again := &account.Contact{Name: "One", Email: "one@example.org"}
	require.ErrorAs(f.t, f.createOne(f.withKey("k", "body"), f.mine, again), &replay)
	resp, err := replay.Response.UnmarshalNew()
	require.NoError(f.t, err)
	require.True(f.t, proto.Equal(&accountv1.CreateContactResponse{Contact: &accountv1.Contact{Id: one.ID}}, resp), "%v", resp)
	err = f.createOne(f.withKey("k", "another body"), f.mine, &account.Contact{Name: "Two"})
	f.reason(errorv1.Reason_REASON_IDEMPOTENCY_KEY_REUSED, err)
	require.NoError(f.t, f.createOne(f.withKey("k", "body"), f.other, &account.Contact{Name: "Other"}), "keys are those of an account")
	require.Equal(f.t, []string{"One"}, f.list(f.mine))
	require.Equal(f.t, []string{"Other"}, f.list(f.other))

	g := &account.Group{AccountID: f.mine, Name: "G"}
	require.NoError(f.t, f.createGroup(f.withKey("g", "body"), g))
	require.ErrorAs(f.t, f.createGroup(f.withKey("g", "body"), &account.Group{AccountID: f.mine, Name: "G"}), &replay)
	f.reason(errorv1.Reason_REASON_IDEMPOTENCY_KEY_REUSED, f.createGroup(f.withKey("g", "other"), &account.Group{AccountID: f.mine, Name: "H"}))

	// A call that was refused may be repeated when the reason is gone.
	err = f.createOne(f.withKey("r", "body"), f.mine, &account.Contact{Name: "Late", Email: "one@example.org"})
	f.reason(errorv1.Reason_REASON_DUPLICATE_EMAIL, err)
	require.NoError(f.t, f.Contacts.DeleteContact(f.ctx, []string{f.mine}, one.ID))
	require.NoError(f.t, f.createOne(f.withKey("r", "body"), f.mine, &account.Contact{Name: "Late", Email: "one@example.org"}))
}

func repeatedAtOnce(f *fixture) {
	errs := make([]error, 50)
	atOnce(len(errs), func(i int) {
		errs[i] = f.createOne(f.withKey("k", "body"), f.mine, &account.Contact{Name: "One", Email: "one@example.org"})
	})
	for _, err := range errs {
		var replay *pg.ReplayError
		if err != nil && !errors.As(err, &replay) { // or it is told that the first is in progress
			f.reason(errorv1.Reason_REASON_CONFLICT, err)
		}
	}
	var replay *pg.ReplayError
	require.ErrorAs(f.t, f.createOne(f.withKey("k", "body"), f.mine, &account.Contact{Name: "One", Email: "one@example.org"}), &replay)
	require.Equal(f.t, []string{"One"}, f.list(f.mine))
}

func notRepeated(f *fixture) {
	f.create(f.mine, &account.Contact{Name: "Same"}, &account.Contact{Name: "Same"})
	f.create(f.mine, &account.Contact{Name: "Same"})
	require.Len(f.t, f.list(f.mine), 3)
}

func updateKeys(f *fixture) {
	a := &account.Contact{Name: "A", Email: "a@x.example", Phone: "+251911000001", Identifiers: map[string]string{"telegram": "t"}}
	b := &account.Contact{Name: "B", Email: "b@x.example"}
	f.create(f.mine, a, b)
	set := func(id string, change func(*account.Contact)) error {
		_, err := f.Contacts.UpdateContact(f.ctx, []string{f.mine}, id, func(c *account.Contact) error {
			change(c)
			return nil
		})
		return err
	}
	err := set(b.ID, func(c *account.Contact) { c.Email, c.Phone = "a@x.example", "+251911000002" })
	require.Equal(f.t, a.ID, f.holder(errorv1.Reason_REASON_DUPLICATE_EMAIL, err))
	require.Equal(f.t, "b@x.example", f.get(f.mine, b.ID).Email)
	require.NoError(f.t, set(a.ID, func(c *account.Contact) { c.Email, c.Identifiers = "", nil }))
	require.NoError(f.t, set(b.ID, func(c *account.Contact) { c.Email, c.Identifiers = "a@x.example", map[string]string{"telegram": "t"} }))
	f.create(f.mine, &account.Contact{Name: "C", Email: "b@x.example", Phone: "+251911000002"})
	require.NoError(f.t, set(b.ID, func(c *account.Contact) { c.Tags = []string{"same keys"} }), "its own keys are no rivals")
	got := f.get(f.mine, b.ID)
	require.Equal(f.t, []string{"same keys"}, got.Tags)
	require.True(f.t, got.UpdatedAt.After(got.CreatedAt))
}

func updatesAtOnce(f *fixture) {
	c := &account.Contact{Name: "Busy"}
	f.create(f.mine, c)
	var failed sync.Map
	atOnce(8, func(i int) {
		_, err := f.Contacts.UpdateContact(f.ctx, []string{f.mine}, c.ID, func(c *account.Contact) error {
			c.Tags = append(append([]string{}, c.Tags...), fmt.Sprintf("tag-%d", i))
			return nil
		})
		if err != nil {
			failed.Store(i, err)
		}
	})
	lost := 0
	failed.Range(func(_, err any) bool {
		e, _ := err.(error)
		f.reason(errorv1.Reason_REASON_CONFLICT, e)
		lost++
		return true
	})
	require.Len(f.t, f.get(f.mine, c.ID).Tags, 8-lost, "what was answered is kept")
}

func refusedUpdate(f *fixture) {
	c := &account.Contact{Name: "A", Email: "a@x.example"}
	f.create(f.mine, c)
	_, err := f.Contacts.UpdateContact(f.ctx, []string{f.mine}, c.ID, func(c *account.Contact) error {
		c.Email = "b@x.example"
		return account.InvalidField("name", "is wrong")
	})
	f.reason(errorv1.Reason_REASON_VALIDATION_FAILED, err)
	require.Equal(f.t, "a@x.example", f.get(f.mine, c.ID).Email)
	f.create(f.mine, &account.Contact{Name: "B", Email: "b@x.example"})
}

func deleteFrees(f *fixture) {
	c := &account.Contact{Name: "A", Email: "a@x.example", Phone: "+251911000001", ExternalID: "E", Identifiers: map[string]string{"whatsapp": "w"}}
	f.create(f.mine, c)
	require.NoError(f.t, f.Contacts.DeleteContact(f.ctx, []string{f.mine}, c.ID))
	_, err := f.Contacts.Contact(f.ctx, []string{f.mine}, c.ID)
	f.reason(errorv1.Reason_REASON_NOT_FOUND, err)
	f.reason(errorv1.Reason_REASON_NOT_FOUND, f.Contacts.DeleteContact(f.ctx, []string{f.mine}, c.ID))
	again := *c
	again.ID = ""
	f.create(f.mine, &again)
}

// tenants tries every method with another account's ids.
func tenants(f *fixture) {
	c := &account.Contact{Name: "Theirs", Email: "x@example.org", Metadata: json.RawMessage(`{"k":"v"}`)}
	f.create(f.other, c)
	g := f.group(f.other, "Theirs")
	_, err := f.Contacts.AddContacts(f.ctx, []string{f.other}, g.ID, []string{c.ID})
	require.NoError(f.t, err)
	ours := f.group(f.mine, "Ours")
	scope, nobody := []string{f.mine}, account.NewID()
	for name, call := range map[string]func(contactID, groupID string) error{
		"Contact": func(id, _ string) error { _, err := f.Contacts.Contact(f.ctx, scope, id); return err },
		"UpdateContact": func(id, _ string) error {
			_, err := f.Contacts.UpdateContact(f.ctx, scope, id, func(c *account.Contact) error { c.Name = "Mine"; return nil })
			return err
		},
		"DeleteContact": func(id, _ string) error { return f.Contacts.DeleteContact(f.ctx, scope, id) },
		"Group":         func(_, id string) error { _, err := f.Contacts.Group(f.ctx, scope, id); return err },
		"UpdateGroup": func(_, id string) error {
			_, err := f.Contacts.UpdateGroup(f.ctx, scope, id, func(g *account.Group) { g.Name = "Mine" })
			return err
		},
		"DeleteGroup":       func(_, id string) error { return f.Contacts.DeleteGroup(f.ctx, scope, id) },
		"CheckGroups":       func(_, id string) error { return f.Contacts.CheckGroups(f.ctx, f.mine, []string{id}) },
		"AddContacts group": func(_, id string) error { _, err := f.Contacts.AddContacts(f.ctx, scope, id, nil); return err },
		"AddContacts": func(id, _ string) error {
			_, err := f.Contacts.AddContacts(f.ctx, scope, ours.ID, []string{id})
			return err
		},
		"RemoveContact": func(contactID, groupID string) error {
			return f.Contacts.RemoveContact(f.ctx, scope, groupID, contactID)
		},
		"GroupContacts": func(_, id string) error {
			_, err := f.Contacts.GroupContacts(f.ctx, scope, id, noQuery)
			return err
		},
	} {
		foreign, random := call(c.ID, g.ID), call(nobody, nobody)
		f.reason(errorv1.Reason_REASON_NOT_FOUND, foreign)
		require.Equal(f.t, apierr.From(random).Error(), apierr.From(foreign).Error(), name)
	}
	require.Empty(f.t, f.list(f.mine))
	require.Empty(f.t, f.list(f.mine, "group_id:eq:"+g.ID))
	list, err := f.Contacts.Recipients(f.ctx, f.mine, []string{g.ID}, zeroID, 10)
	require.NoError(f.t, err)
	require.Empty(f.t, list)
	got := f.get(f.other, c.ID)
	require.Equal(f.t, "Theirs", got.Name)
	back, err := f.Contacts.Group(f.ctx, []string{f.other}, g.ID)
	require.NoError(f.t, err)
	require.EqualValues(f.t, 1, back.ContactCount)
	_, err = f.Contacts.Contacts(f.ctx, nil, noQuery)
	require.Error(f.t, err, "without a scope nothing is read")
}

func atOnce(n int, do func(i int)) {
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { do(i) })
	}
	all.Wait()
}
