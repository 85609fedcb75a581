package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/pg/pgtest"
	"github.com/turumba/turumba/kit/query"
	"github.com/turumba/turumba/services/messaging"
)

const day = 24 * time.Hour

// archive is a ledger whose clock the test moves.
type archive struct {
	t         *testing.T
	clock     *clock.Fake
	admin     *pgxpool.Pool
	api, work *Store
	account   string
	channel   *messaging.Channel
}

func newArchive(t *testing.T) *archive {
	t.Helper()
	d := pgtest.New(t, Migrations()...)
	a := &archive{t: t, clock: clock.NewFake(clock.System().Now()), account: messaging.NewID()}
	var err error
	a.admin, err = pgxpool.New(t.Context(), d.URL)
	require.NoError(t, err)
	t.Cleanup(a.admin.Close)
	a.api, err = New(d.OpenAt(t, pg.RoleAPI, a.clock), make([]byte, 32), func() {})
	require.NoError(t, err)
	a.work, err = New(d.OpenAt(t, pg.RoleWorker, a.clock), make([]byte, 32), func() {})
	require.NoError(t, err)
	require.NoError(t, a.work.Upkeep(t.Context()))
	a.channel = &messaging.Channel{
		ID: messaging.NewID(), AccountID: a.account, Name: "Office", ChannelType: messaging.TypeEmail, Provider: messaging.ProviderSMTP,
		Status: messaging.ChannelConnected, IsEnabled: true, RetryCount: 2, RetryInterval: 1, Connections: 4, OnUnknown: messaging.UnknownHold,
		Credentials: messaging.Credentials{SMTP: &messaging.SMTP{Host: "mail.example.org", Port: 587, FromEmail: "office@example.org"}},
		Secrets:     map[string]messaging.Secret{}, Sealed: map[string][]byte{},
	}
	a.tx(func(ctx context.Context, tx *pg.Tx) error { return a.api.CreateChannel(ctx, tx, a.channel, nil) })
	return a
}

func (a *archive) tx(do func(context.Context, *pg.Tx) error) {
	a.t.Helper()
	require.NoError(a.t, a.api.DB().InTx(a.t.Context(), []string{a.account}, func(tx *pg.Tx) error { return do(a.t.Context(), tx) }))
}

func (a *archive) exec(sql string, args ...any) {
	a.t.Helper()
	_, err := a.admin.Exec(a.t.Context(), sql, args...)
	require.NoError(a.t, err)
}

// single makes a message that says secret wherever a message says something.
func (a *archive) single(secret, contactID, to string) string {
	a.t.Helper()
	body := "text " + secret
	m := &messaging.Message{
		AccountID: a.account, ChannelID: a.channel.ID, ChannelType: a.channel.ChannelType, ContactID: contactID, Direction: messaging.DirectionOutbound,
		Status: messaging.MessageQueued, DeliveryAddress: to, Values: messaging.Values{{Name: "NAME", Text: secret}}, Subject: "subject " + secret, Body: &body,
		HTML: "<p>" + secret, Metadata: []byte(`{"note": "` + secret + `"}`),
	}
	a.tx(func(ctx context.Context, tx *pg.Tx) error {
		return a.api.CreateMessages(ctx, tx, []*messaging.Message{m}, nil)
	})
	return m.ID
}

// becomes gives a message its outcome as the pipeline stores it, at the clock's time.
func (a *archive) becomes(id, status, secret string) {
	a.t.Helper()
	a.exec(`
		UPDATE messages SET status = $2, updated_at = $3, attempts = 1, error_text = $4,
			sent_at = CASE WHEN $2 IN ('sent', 'delivered') THEN $3::timestamptz END, delivered_at = CASE $2 WHEN 'delivered' THEN $3::timestamptz END,
			failed_at = CASE $2 WHEN 'permanently_failed' THEN $3::timestamptz END, error_code = CASE $2 WHEN 'permanently_failed' THEN 'permanent_recipient' END
		WHERE id = $1`, id, status, a.clock.Now(), "550 "+secret)
	a.exec("DELETE FROM dispatch_chunks WHERE $1 = ANY (message_ids)", id)
	a.exec(`INSERT INTO message_attempts (account_id, message_id, attempt, outcome, class, text, created_at)
		VALUES ($1, $2, 1, 'rejected', 'transient', $3, $4)`, a.account, id, "451 "+secret, a.clock.Now())
}

// dump is all that the database holds.
func (a *archive) dump() string {
	a.t.Helper()
	ctx := a.t.Context()
	conn, err := a.admin.Acquire(ctx)
	require.NoError(a.t, err)
	defer conn.Release()
	rows, err := conn.Query(ctx, "SELECT oid::regclass::text FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition")
	require.NoError(a.t, err)
	tables, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(a.t, err)
	var all bytes.Buffer
	for _, table := range tables {
		_, err := conn.Conn().PgConn().CopyTo(ctx, &all, "COPY (SELECT t::text FROM "+table+" AS t) TO STDOUT")
		require.NoError(a.t, err, table)
	}
	return all.String()
}

// retain lets the retention of the account run until nothing is left.
func (a *archive) retain(keep time.Duration) (erased int) {
	a.t.Helper()
	for range 1000 {
		n, done, err := a.work.Retain(a.t.Context(), a.account, keep)
		require.NoError(a.t, err)
		if erased += n; done {
			return erased
		}
	}
	a.t.Fatal("the retention does not end")
	return 0
}

func (a *archive) message(id string) *messaging.Message {
	a.t.Helper()
	m, err := a.api.Message(a.t.Context(), []string{a.account}, id)
	require.NoError(a.t, err)
	return m
}

func (a *archive) check() {
	a.t.Helper()
	problems, err := CheckLedger(a.t.Context(), a.admin)
	require.NoError(a.t, err)
	require.Empty(a.t, problems)
}

// TestRetention: single messages lose their text once they are over for long enough,
// each by its own end, and nothing else.
func TestRetention(t *testing.T) {
	t.Parallel()
	a := newArchive(t)
	over := map[string]string{} // by status
	for _, status := range []string{messaging.MessageSent, messaging.MessageDelivered, messaging.MessagePermanentlyFailed, messaging.MessageCancelled} {
		over[status] = a.single("SECRET-"+status, "", status+"@example.org")
		a.becomes(over[status], status, "SECRET-"+status)
	}
	waiting, late := a.single("SECRET-waiting", "", "waiting@example.org"), a.single("SECRET-late", "", "late@example.org")
	a.clock.Advance(20 * day)
	a.becomes(late, messaging.MessageSent, "SECRET-late")
	require.Zero(t, a.retain(30*day), "nothing is over for so long")
	a.clock.Advance(10*day + time.Minute)
	require.Equal(t, len(over), a.retain(30*day))
	require.Zero(t, a.retain(30*day), "once is enough")

	dump := a.dump()
	for status, id := range over {
		require.NotContains(t, dump, "SECRET-"+status)
		m := a.message(id)
		require.Equal(t, status, m.Status)
		require.Equal(t, a.clock.Now().UTC().Truncate(time.Microsecond), m.BodyErasedAt.UTC())
		require.Equal(t, status+"@example.org", m.DeliveryAddress, "the ledger says where it went")
		require.Nil(t, m.Body)
		require.Empty(t, m.Subject+m.ErrorText)
		require.Len(t, m.History, 1, "its attempts stay")
	}
	for _, kept := range []string{"SECRET-waiting", "SECRET-late"} {
		require.Contains(t, dump, "text "+kept)
		require.Contains(t, dump, "subject "+kept)
	}
	page, err := a.api.Messages(t.Context(), []string{a.account}, query.Request{Limit: 100})
	require.NoError(t, err)
	require.Len(t, page.Data, len(over)+2)

	err = a.api.DB().InTx(t.Context(), []string{a.account}, func(tx *pg.Tx) error {
		_, err := a.api.RetryMessage(t.Context(), tx, []string{a.account}, over[messaging.MessagePermanentlyFailed])
		return err
	})
	require.True(t, apierr.HasReason(err, errorv1.Reason_REASON_INVALID_STATE))
	require.ErrorContains(t, err, "erased")

	a.clock.Advance(20 * day)
	require.Equal(t, 1, a.retain(30*day), "the late one is over")
	a.becomes(waiting, messaging.MessageSent, "SECRET-waiting")
	require.NotContains(t, a.dump(), "SECRET-late")
	a.clock.Advance(30*day + time.Minute)
	require.Equal(t, 1, a.retain(30*day), "the one that waited is over too")
	require.NotContains(t, a.dump(), "SECRET")
	a.check()
}

// TestRetentionGoesOn: more than one step looks at, and less time to keep than before.
func TestRetentionGoesOn(t *testing.T) {
	t.Parallel()
	a := newArchive(t)
	const many = 2*lookLimit + 500
	now := a.clock.Now().Truncate(time.Millisecond)
	a.exec(`
		INSERT INTO messages (id, account_id, channel_id, status, delivery_address, message_body, sent_at, created_at, updated_at)
		SELECT id, $1, $2, 'sent', 'to-' || ordinal || '@example.org', 'SECRET', $3, $3, $3 FROM unnest($4::uuid[]) WITH ORDINALITY AS n (id, ordinal)`,
		a.account, a.channel.ID, now, messaging.IDsAt(now, 0, many))
	a.clock.Advance(40 * day)
	require.Zero(t, a.retain(50*day))
	n, done, err := a.work.Retain(t.Context(), a.account, 30*day)
	require.NoError(t, err)
	require.False(t, done)
	require.Equal(t, lookLimit, n, "a step is bounded")
	require.Equal(t, many-lookLimit, a.retain(30*day))
	require.NotContains(t, a.dump(), "SECRET")
}

// sent makes a send with a text of its own that goes to two addresses, and ends it.
func (a *archive) sent(secret string) *messaging.GroupMessage {
	a.t.Helper()
	ctx := a.t.Context()
	text := &messaging.Template{ID: messaging.NewID(), AccountID: a.account, Name: secret[len("SECRET-"):], Category: messaging.CategoryAuto, Body: "{NAME} " + secret, IsActive: true}
	require.NoError(a.t, text.Prepare())
	g := &messaging.GroupMessage{
		ID: messaging.NewID(), AccountID: a.account, ChannelID: a.channel.ID, TemplateID: text.ID, Status: messaging.GroupQueued,
		CustomValues: map[string]string{"X": secret}, Metadata: []byte(`{"note": "` + secret + `"}`),
	}
	to := []messaging.Recipient{{Given: "a@example.org", Name: secret}, {Given: "b@example.org", Values: map[string]string{"NAME": secret}}}
	a.tx(func(ctx context.Context, tx *pg.Tx) error {
		return errors.Join(a.api.CreateTemplate(ctx, tx, text), a.api.AddAttachment(ctx, tx, &messaging.Attachment{
			ID: messaging.NewID(), AccountID: a.account, TemplateID: text.ID, Filename: "f.txt", MediaType: "text/plain", Size: int32(len(secret)), Digest: secret,
		}, []byte(secret)), a.api.CreateGroupMessage(ctx, tx, g, to, messaging.Allowance{}))
	})
	job, err := a.work.ClaimFanout(ctx, time.Hour)
	require.NoError(a.t, err)
	f, err := a.work.StartFanout(ctx, *job, time.Hour)
	require.NoError(a.t, err)
	_, err = a.work.WriteFanout(ctx, f, FanoutBatch{AddressCursor: messaging.NewID(), Messages: []messaging.Addressee{
		{Address: "a@example.org", Values: messaging.Values{{Name: "NAME", Text: secret}}}, {Address: "b@example.org", Values: messaging.Values{{Name: "NAME", Text: secret}}},
	}}, 0)
	require.NoError(a.t, err)
	require.NoError(a.t, a.work.FinishFanout(ctx, f))
	return g
}

// end lets the messages of all sends fail for good.
func (a *archive) end() {
	a.t.Helper()
	ctx := a.t.Context()
	for {
		c, err := a.work.ClaimChunk(ctx, LaneBulk, []string{messaging.TypeEmail}, Skip{}, time.Hour)
		require.NoError(a.t, err)
		if c == nil {
			return
		}
		require.NoError(a.t, a.work.EndChunk(ctx, c, nil, Rest{Status: messaging.MessagePermanentlyFailed, Code: messaging.CodeChannelDeleted}))
	}
}

// TestRetentionOfSends: a send goes as a whole, with its text, its values and its files,
// by the time it ended.
func TestRetentionOfSends(t *testing.T) {
	t.Parallel()
	a := newArchive(t)
	ctx, scope := t.Context(), []string{a.account}
	g := a.sent("SECRET-one")
	var left int
	require.NoError(t, a.admin.QueryRow(ctx, "SELECT count(*) FROM group_message_recipients").Scan(&left))
	require.Zero(t, left, "addresses go once their messages are written")
	a.clock.Advance(20 * day)
	require.Zero(t, a.retain(10*day), "the send is not over")
	a.end()
	page, err := a.api.Messages(ctx, scope, query.Request{Filters: []string{"group_message_id:eq:" + g.ID}, Limit: 10})
	require.NoError(t, err)
	require.Equal(t, "SECRET-one SECRET-one", *page.Data[0].Body)
	a.clock.Advance(10*day + time.Minute)

	retry := func() error {
		return a.api.DB().InTx(ctx, scope, func(tx *pg.Tx) error {
			_, err := a.api.RetryMessage(ctx, tx, scope, page.Data[0].ID)
			return err
		})
	}
	require.NoError(t, retry())
	require.Zero(t, a.retain(10*day), "somebody opened it again")
	_, err = a.work.ReleaseDue(ctx)
	require.NoError(t, err)
	a.end()
	a.clock.Advance(10*day + time.Minute)
	require.Equal(t, 2, a.retain(10*day))
	require.NotContains(t, a.dump(), "SECRET")
	require.Zero(t, a.retain(10*day))

	after, err := a.api.GroupMessage(ctx, scope, g.ID)
	require.NoError(t, err)
	require.NotNil(t, after.BodyErasedAt)
	require.Equal(t, [2]int32{2, 2}, [2]int32{after.Total, after.Failed})
	page, err = a.api.Messages(ctx, scope, query.Request{Filters: []string{"group_message_id:eq:" + g.ID}, Limit: 10})
	require.NoError(t, err)
	for _, m := range page.Data {
		require.Nil(t, m.Body)
		require.NotNil(t, m.BodyErasedAt)
		require.NotEmpty(t, m.DeliveryAddress)
	}
	require.True(t, apierr.HasReason(retry(), errorv1.Reason_REASON_INVALID_STATE))
	err = a.api.DB().InTx(ctx, scope, func(tx *pg.Tx) error {
		_, err := a.api.ResendGroupMessage(ctx, tx, scope, g.ID, messaging.Resending{}, messaging.Allowance{})
		return err
	})
	require.True(t, apierr.HasReason(err, errorv1.Reason_REASON_INVALID_STATE), "%v", err)
	require.ErrorContains(t, err, "erased")
	a.check()
}

// TestRetentionOfDrafts: a draft is nobody's until it was deleted.
func TestRetentionOfDrafts(t *testing.T) {
	t.Parallel()
	a := newArchive(t)
	template := &messaging.Template{ID: messaging.NewID(), AccountID: a.account, Name: "T", Body: "x", IsActive: true}
	require.NoError(t, template.Prepare())
	var ids []string
	a.tx(func(ctx context.Context, tx *pg.Tx) error {
		err := a.api.CreateTemplate(ctx, tx, template)
		for i := range 2 {
			g := &messaging.GroupMessage{
				ID: messaging.NewID(), AccountID: a.account, ChannelID: a.channel.ID, TemplateID: template.ID, Status: messaging.GroupDraft,
				CustomValues: map[string]string{"X": fmt.Sprint("SECRET-", i)},
			}
			ids = append(ids, g.ID)
			err = errors.Join(err, a.api.CreateGroupMessage(ctx, tx, g, nil, messaging.Allowance{}))
		}
		return err
	})
	require.NoError(t, a.api.DeleteGroupMessage(t.Context(), []string{a.account}, ids[0]))
	a.clock.Advance(11 * day)
	a.retain(10 * day)
	dump := a.dump()
	require.NotContains(t, dump, "SECRET-0")
	require.Contains(t, dump, "SECRET-1")
	_, err := a.api.Template(t.Context(), []string{a.account}, template.ID)
	require.NoError(t, err, "a template that somebody made stays")
}

// erase asks for an erasure and lets the worker take steps until nothing is to be done
// at the clock's time.
func (a *archive) erase(e *messaging.Erasure) *messaging.Erasure {
	a.t.Helper()
	e.ID, e.AccountID = messaging.NewID(), a.account
	a.tx(func(ctx context.Context, tx *pg.Tx) error { return a.api.CreateErasure(ctx, tx, e) })
	_, worked, err := a.work.StepErasure(a.t.Context())
	require.NoError(a.t, err)
	require.False(a.t, worked, "what is being stored comes first")
	a.clock.Advance(messaging.ErasureDelay)
	return a.goOn(e.ID)
}

func (a *archive) goOn(id string) *messaging.Erasure {
	a.t.Helper()
	for worked := true; worked; {
		var err error
		_, worked, err = a.work.StepErasure(a.t.Context())
		require.NoError(a.t, err)
	}
	e, err := a.api.Erasure(a.t.Context(), []string{a.account}, id)
	require.NoError(a.t, err)
	return e
}

// TestErasureOfAPerson: everything of a contact goes, with the addresses, also what is
// hidden; what has not ended goes when it has.
func TestErasureOfAPerson(t *testing.T) {
	t.Parallel()
	a := newArchive(t)
	contact, other := messaging.NewID(), messaging.NewID()
	mine, hidden := a.single("SECRET-mine", contact, "Ada@example.org"), a.single("SECRET-hidden", contact, "Ada@example.org")
	byAddress, waiting := a.single("SECRET-address", "", "ada@example.org"), a.single("SECRET-waiting", contact, "Ada@example.org")
	theirs := a.single("KEPT", other, "bob@example.org")
	for _, id := range []string{mine, hidden, byAddress, theirs} {
		a.becomes(id, messaging.MessageSent, "SECRET")
	}
	a.exec("UPDATE messages SET error_text = NULL WHERE id = $1", theirs)
	a.exec("UPDATE message_attempts SET text = '' WHERE message_id = $1", theirs)
	require.NoError(t, a.api.DeleteMessage(t.Context(), []string{a.account}, hidden))
	a.exec("INSERT INTO group_message_skips (account_id, group_message_id, id, delivery_address, reason, created_at) VALUES ($1, $2, $2, 'ADA@example.org', 'opted_out', now())", a.account, messaging.NewID())
	a.exec("INSERT INTO group_message_recipients (account_id, group_message_id, id, address) VALUES ($1, $2, $2, 'ADA@example.org')", a.account, messaging.NewID())
	a.clock.Advance(time.Minute)

	e := a.erase(&messaging.Erasure{ContactID: contact, Address: "ada@EXAMPLE.org"})
	require.Equal(t, messaging.ErasureRunning, e.Status)
	require.Equal(t, [2]int32{3, 1}, [2]int32{e.Erased, e.Waiting})
	a.becomes(waiting, messaging.MessagePermanentlyFailed, "SECRET-waiting")
	require.Equal(t, messaging.ErasureRunning, a.goOn(e.ID).Status, "it looks again after a while")
	a.clock.Advance(time.Minute)
	e = a.goOn(e.ID)
	require.Equal(t, messaging.ErasureCompleted, e.Status)
	require.Equal(t, [2]int32{4, 0}, [2]int32{e.Erased, e.Waiting})
	require.NotNil(t, e.CompletedAt)

	dump := strings.ToLower(a.dump())
	require.NotContains(t, dump, "secret")
	require.NotContains(t, dump, "ada@example.org")
	require.Contains(t, dump, "kept")
	require.Contains(t, dump, "bob@example.org")
	m := a.message(mine)
	require.Equal(t, contact, m.ContactID, "the ledger can be asked for the contact")
	require.Empty(t, m.DeliveryAddress)
	require.NotNil(t, m.BodyErasedAt)
	require.Nil(t, a.message(theirs).BodyErasedAt)
	a.check()
}

// TestErasureAfterRetention: an erasure takes the addresses that a retention left.
func TestErasureAfterRetention(t *testing.T) {
	t.Parallel()
	a := newArchive(t)
	a.sent("SECRET-one")
	a.end()
	a.clock.Advance(11 * day)
	require.Equal(t, 2, a.retain(10*day))
	require.Contains(t, a.dump(), "a@example.org")
	for _, address := range []string{"a@example.org", "b@example.org"} {
		require.Equal(t, int32(1), a.erase(&messaging.Erasure{Address: address}).Erased)
		require.NotContains(t, a.dump(), address)
	}
	a.check() // two messages of the send have no address any more
}

// TestErasureDuringFanout: messages of a send that was being written when the erasure
// was asked for are found, whenever they come.
func TestErasureDuringFanout(t *testing.T) {
	t.Parallel()
	a := newArchive(t)
	ctx, contact := t.Context(), messaging.NewID()
	template := &messaging.Template{ID: messaging.NewID(), AccountID: a.account, Name: "T", Body: "{NAME}", IsActive: true}
	require.NoError(t, template.Prepare())
	g := &messaging.GroupMessage{
		ID: messaging.NewID(), AccountID: a.account, ChannelID: a.channel.ID, TemplateID: template.ID, Status: messaging.GroupQueued, ContactGroupIDs: []string{messaging.NewID()},
	}
	a.tx(func(ctx context.Context, tx *pg.Tx) error {
		return errors.Join(a.api.CreateTemplate(ctx, tx, template), a.api.CreateGroupMessage(ctx, tx, g, nil, messaging.Allowance{}))
	})
	job, err := a.work.ClaimFanout(ctx, time.Hour)
	require.NoError(t, err)
	f, err := a.work.StartFanout(ctx, *job, time.Hour)
	require.NoError(t, err)
	a.clock.Advance(time.Second)
	e := a.erase(&messaging.Erasure{ContactID: contact})
	require.Equal(t, messaging.ErasureRunning, e.Status)
	_, err = a.work.WriteFanout(ctx, f, FanoutBatch{Cursor: contact, Messages: []messaging.Addressee{
		{ContactID: contact, Address: "ada@example.org", Values: messaging.Values{{Name: "NAME", Text: "SECRET"}}},
		{ContactID: messaging.NewID(), Address: "bob@example.org", Values: messaging.Values{{Name: "NAME", Text: "Bob"}}},
	}}, 0)
	require.NoError(t, err)
	require.NoError(t, a.work.FinishFanout(ctx, f))
	a.end()
	a.clock.Advance(time.Minute)
	e = a.goOn(e.ID)
	require.Equal(t, messaging.ErasureCompleted, e.Status)
	require.Equal(t, int32(1), e.Erased)
	dump := a.dump()
	require.NotContains(t, dump, "SECRET")
	require.NotContains(t, dump, "ada@example.org")
	require.Contains(t, dump, "bob@example.org")
	a.check()
}

// TestErasureOfOneMessage: at once, hidden or not, and only with an outcome.
func TestErasureOfOneMessage(t *testing.T) {
	t.Parallel()
	a := newArchive(t)
	id := a.single("SECRET", "", "ada@example.org")
	erase := func() (m *messaging.Message, err error) {
		err = a.api.DB().InTx(t.Context(), []string{a.account}, func(tx *pg.Tx) error {
			m, err = a.api.EraseMessage(t.Context(), tx, &messaging.Erasure{ID: messaging.NewID(), AccountID: a.account, MessageID: id})
			return err
		})
		return m, err
	}
	_, err := erase()
	require.True(t, apierr.HasReason(err, errorv1.Reason_REASON_INVALID_STATE))
	a.becomes(id, messaging.MessageSent, "SECRET")
	require.NoError(t, a.api.DeleteMessage(t.Context(), []string{a.account}, id))
	m, err := erase()
	require.NoError(t, err)
	require.Empty(t, m.DeliveryAddress+m.Subject)
	require.NotNil(t, m.BodyErasedAt)
	dump := a.dump()
	require.NotContains(t, dump, "SECRET")
	require.NotContains(t, dump, "ada@example.org")
	page, err := a.api.Erasures(t.Context(), []string{a.account}, query.Request{Filters: []string{"message_id:eq:" + id}, Limit: 10})
	require.NoError(t, err)
	require.Len(t, page.Data, 1)
	require.Equal(t, messaging.ErasureCompleted, page.Data[0].Status)
}
