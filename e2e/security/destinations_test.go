package security_test

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/turumba/turumba/e2e/wire"
	"github.com/turumba/turumba/e2e/world"
	messagingv1 "github.com/turumba/turumba/gen/turumba/messaging/v1"
	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/idempotency"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/pg/pgtest"
	"github.com/turumba/turumba/kit/secrets"
	"github.com/turumba/turumba/kit/vault"
)

// TestDestinations: whoever may change a channel asks for its stored secrets by changing where they go. Every destination of every kind of credentials
// is tried, by the contract; so are channels whose secrets an earlier version stored.
func TestDestinations(t *testing.T) {
	t.Parallel()
	s := report.suite("destinations")
	home, elsewhere := newEchoes(t), newEchoes(t)
	w := world.New(t, "EGRESS_ALLOW="+home.allow()+","+elsewhere.allow())
	d := &destinations{t: t, w: w, s: s, home: home, elsewhere: elsewhere}
	kinds := (&messagingv1.ChannelCredentials{}).ProtoReflect().Descriptor().Oneofs().ByName("kind").Fields()
	fields := 0
	for _, over := range wire.All() {
		for i := range kinds.Len() {
			kind := kinds.Get(i)
			for j := range kind.Message().Fields().Len() {
				if fd := kind.Message().Fields().Get(j); secrets.IsDestination(fd) {
					fields++
					d.attack(over, kind, fd, false)
					d.attack(over, kind, fd, true)
				}
			}
			d.rivals(over, kind)
		}
	}
	require.Positive(t, d.arrived, "nothing shows that a change with its secrets leads elsewhere")
	s.coverage = fmt.Sprintf("%d destinations of %d kinds, with secrets of this version and of earlier ones; %d changes with all secrets led elsewhere", fields/len(wire.All()), kinds.Len(), d.arrived)
}

// destinations are channels whose secrets are asked for.
type destinations struct {
	t               *testing.T
	w               *world.World
	s               *suite
	home, elsewhere *echoes
	arrived         int
}

// credentials of a kind, at home, without secrets.
func (d *destinations) credentials(kind string) map[string]any {
	name := map[string]string{"smtp": "smtp", "twilio": "twilio by key"}[kind]
	require.NotEmpty(d.t, name, "say what credentials of %s look like", kind)
	settings, _ := d.home.settings(name)
	return settings
}

// changes are what leads each destination elsewhere; the first field is the one meant, others
// stand beside it where the adapter wants both.
func (d *destinations) changes(fd protoreflect.FieldDescriptor) map[string]any {
	change, ok := map[protoreflect.FullName]map[string]any{
		"turumba.messaging.v1.SmtpCredentials.host":            {"host": "localhost"},
		"turumba.messaging.v1.SmtpCredentials.port":            {"port": port(d.elsewhere.smtp.Addr())},
		"turumba.messaging.v1.SmtpCredentials.tls_mode":        {"tls_mode": "starttls"},
		"turumba.messaging.v1.SmtpCredentials.username":        {"username": "other"},
		"turumba.messaging.v1.SmtpCredentials.allow_plaintext": {"allow_plaintext": false, "tls_mode": "starttls"},
		"turumba.messaging.v1.TwilioCredentials.account_sid":   {"account_sid": "AC00000000000000000000000000000008"},
		"turumba.messaging.v1.TwilioCredentials.base_url":      {"base_url": d.elsewhere.http.URL},
	}[fd.FullName()]
	require.True(d.t, ok, "say what leads %s elsewhere", fd.FullName())
	return change
}

func secretsOf(kind protoreflect.FieldDescriptor) (names []string) {
	for _, fd := range secrets.Fields(kind.Message()) {
		names = append(names, string(fd.Name()))
	}
	slices.Sort(names)
	return names
}

// create makes a channel with a secret of its own in each field, and returns them.
func (d *destinations) create(over string, kind protoreflect.FieldDescriptor) (id string, given map[string]string) {
	d.t.Helper()
	settings := d.credentials(string(kind.Name()))
	given = map[string]string{}
	for _, name := range secretsOf(kind) {
		given[name] = "CANARY-" + uuid.NewString()
		settings[name] = given[name]
	}
	got := d.call(over, "CreateChannel", map[string]any{"account_id": d.w.Vars["account_id"], "name": "D", "credentials": map[string]any{string(kind.Name()): settings}})
	body, _ := got.Body.(map[string]any)
	id, ok := body["id"].(string)
	require.True(d.t, ok, "%s", got.Raw)
	return id, given
}

func (d *destinations) call(over, rpc string, body map[string]any) wire.Answer {
	d.t.Helper()
	md, err := wire.FindMethod("turumba.messaging.v1.ChannelService/" + rpc)
	require.NoError(d.t, err)
	got, err := d.w.Do(d.t.Context(), over, wire.Call{Method: md, Body: body, Token: d.w.Token("owner")})
	require.NoError(d.t, err)
	return got
}

func (d *destinations) patch(over, id, kind string, change map[string]any) wire.Answer {
	d.t.Helper()
	return d.call(over, "UpdateChannel", map[string]any{"channel_id": id, "credentials": map[string]any{kind: change}})
}

// attack changes one destination without the secrets, without one of them, and with all.
func (d *destinations) attack(over string, kind, fd protoreflect.FieldDescriptor, former bool) {
	d.t.Helper()
	name, change := string(kind.Name()), d.changes(fd)
	id, given := d.create(over, kind)
	if former {
		d.sealFormerly(id, given)
	}
	is := fmt.Sprintf("%s over %s, stored by an earlier version: %v", fd.FullName(), over, former)
	before := d.call(over, "GetChannel", map[string]any{"channel_id": id})
	heard := d.elsewhere.said.Load()
	var want []string
	for _, secret := range secretsOf(kind) {
		want = append(want, "credentials."+name+"."+secret)
	}
	got := d.patch(over, id, name, change)
	d.s.check(d.t, got.Reason == "SECRET_REQUIRED" && slices.Equal(got.Fields, want), "%s: %s %v", is, got.Reason, got.Fields)
	for i, missing := range secretsOf(kind) {
		with := maps.Clone(change)
		for _, other := range secretsOf(kind) {
			if other != missing {
				with[other] = "another"
			}
		}
		got = d.patch(over, id, name, with)
		d.s.check(d.t, got.Reason == "SECRET_REQUIRED" && slices.Equal(got.Fields, want[i:i+1]), "%s without %s: %s %v", is, missing, got.Reason, got.Fields)
	}
	after := d.call(over, "GetChannel", map[string]any{"channel_id": id})
	d.s.check(d.t, wire.Canonical(before.Body) == wire.Canonical(after.Body), "%s: something was changed: %v", is, after.Body)
	told := d.home.said.Load()
	got = d.call(over, "VerifyChannel", map[string]any{"channel_id": id})
	d.s.check(d.t, got.Reason == "CHANNEL_VERIFICATION_FAILED" && d.home.said.Load() > told, "%s: the channel works no more at home: %s %s", is, got.Reason, got.Detail)
	d.s.check(d.t, d.elsewhere.said.Load() == heard, "%s: somebody else was told something", is)
	d.s.check(d.t, d.bound(id), "%s: a secret is not bound to its destination after it was used", is)

	fresh := maps.Clone(change)
	for _, secret := range secretsOf(kind) {
		fresh[secret] = "FRESH-" + uuid.NewString()
	}
	got = d.patch(over, id, name, fresh)
	d.s.check(d.t, got.Reason == "", "%s with all secrets: %s %v", is, got.Reason, got.Fields)
	got = d.call(over, "VerifyChannel", map[string]any{"channel_id": id})
	d.s.check(d.t, got.Reason == "CHANNEL_VERIFICATION_FAILED", "%s, verified elsewhere: %s %s", is, got.Reason, got.Detail)
	if d.elsewhere.said.Load() > heard {
		d.arrived++
	}
	for secret, value := range given {
		d.s.check(d.t, leaks(d.elsewhere.told.bytes(), value) == "", "%s: somebody else was told the %s", is, secret)
	}
}

// sealFormerly stores secrets as versions before ADR 0042 did: for their place alone.
func (d *destinations) sealFormerly(id string, given map[string]string) {
	d.t.Helper()
	text, err := os.ReadFile(filepath.Join(d.w.DataDir, "master.key"))
	require.NoError(d.t, err)
	key, err := vault.ParseKey(string(text))
	require.NoError(d.t, err)
	v, err := vault.New(key)
	require.NoError(d.t, err)
	sealed := map[string][]byte{}
	for name, value := range given {
		sealed[name], err = v.Seal(vault.AAD{Account: d.w.Vars["account_id"], Resource: id, Field: name, Version: 1}, []byte(value))
		require.NoError(d.t, err)
	}
	d.w.SQL(d.t, "turumba_messaging", func(ctx context.Context, conn *pgx.Conn) {
		tag, err := conn.Exec(ctx, "UPDATE channels SET sealed = $2 WHERE id = $1", id, sealed)
		require.NoError(d.t, err)
		require.EqualValues(d.t, 1, tag.RowsAffected())
	})
}

// bound reports whether every secret of the channel has the format of those that have a
// destination.
func (d *destinations) bound(id string) (all bool) {
	d.t.Helper()
	d.w.SQL(d.t, "turumba_messaging", func(ctx context.Context, conn *pgx.Conn) {
		var sealed map[string][]byte
		require.NoError(d.t, conn.QueryRow(ctx, "SELECT sealed FROM channels WHERE id = $1", id).Scan(&sealed))
		all = len(sealed) > 0
		for _, value := range sealed {
			all = all && value[0] == 2
		}
	})
	return all
}

// rivals change the destination with all secrets and the secrets alone at once: whoever is
// last, what is stored belongs together.
func (d *destinations) rivals(over string, kind protoreflect.FieldDescriptor) {
	d.t.Helper()
	id, _ := d.create(over, kind)
	name := string(kind.Name())
	all := map[string]any{}
	for _, secret := range secretsOf(kind) {
		all[secret] = "RIVAL-" + uuid.NewString()
	}
	var moving protoreflect.FieldDescriptor
	for i := range kind.Message().Fields().Len() {
		if fd := kind.Message().Fields().Get(i); secrets.IsDestination(fd) {
			moving = fd
			break
		}
	}
	there := maps.Clone(all)
	maps.Copy(there, d.changes(moving))
	back := maps.Clone(all)
	back[string(moving.Name())] = d.credentials(name)[string(moving.Name())]
	for range 5 {
		var at sync.WaitGroup
		for _, change := range []map[string]any{there, all, back, all} {
			at.Go(func() {
				got := d.patch(over, id, name, change)
				d.s.check(d.t, got.Reason == "", "rivals over %s: %s %s", over, got.Reason, got.Detail)
			})
		}
		at.Wait()
		got := d.call(over, "VerifyChannel", map[string]any{"channel_id": id})
		d.s.check(d.t, got.Reason == "CHANNEL_VERIFICATION_FAILED", "after rivals over %s: %s %s", over, got.Reason, got.Detail)
	}
}

// TestKeptAnswersAreSealed walks the answers of all RPCs: a secret that stands anywhere in one
// is not in the row that keeps it for an idempotency key, and comes back with it.
func TestKeptAnswersAreSealed(t *testing.T) {
	t.Parallel()
	s := report.suite("kept answers")
	database := pgtest.New(t, pg.IdempotencyMigrations())
	v, err := vault.New(bytes.Repeat([]byte{1}, 32))
	require.NoError(t, err)
	db, err := pg.Open(t.Context(), pg.Config{URL: database.URL, Role: pg.RoleAPI, Vault: v, Clock: clock.System()})
	require.NoError(t, err)
	t.Cleanup(db.Close)
	canary := "CANARY-" + uuid.NewString()
	withSecrets := 0
	for _, md := range wire.Methods() {
		answer := dynamicpb.NewMessage(md.Output())
		if !plant(answer, canary, nil) {
			continue
		}
		withSecrets++
		typed, err := proto.Marshal(answer)
		require.NoError(t, err)
		known := messageOf(t, md.Output())
		require.NoError(t, proto.Unmarshal(typed, known))
		ctx := idempotency.With(t.Context(), &idempotency.Request{Method: wire.Name(md), Key: "k", Hash: []byte("h")})
		keep := func() error {
			return db.InTx(ctx, nil, func(tx *pg.Tx) error {
				if err := tx.Idempotent(ctx, "o"); err != nil {
					return err
				}
				return tx.Respond(ctx, known)
			})
		}
		require.NoError(t, keep())
		var stored []byte
		require.NoError(t, db.QueryRow(ctx, "SELECT response FROM idempotency_keys WHERE method = $1", wire.Name(md)).Scan(&stored))
		form := leaks(stored, canary)
		s.check(t, form == "", "a secret of the answer of %s is kept, as %s", wire.Name(md), form)
		var replay *pg.ReplayError
		require.ErrorAs(t, keep(), &replay)
		again, err := replay.Response.UnmarshalNew()
		require.NoError(t, err)
		s.check(t, proto.Equal(known, again), "the answer of %s does not come back", wire.Name(md))
	}
	require.Positive(t, withSecrets)
	s.coverage = fmt.Sprintf("%d of %d answers can hold a secret", withSecrets, len(wire.Methods()))
}

func messageOf(t *testing.T, md protoreflect.MessageDescriptor) proto.Message {
	t.Helper()
	mt, err := protoregistry.GlobalTypes.FindMessageByName(md.FullName())
	require.NoError(t, err)
	return mt.New().Interface()
}

// plant puts the secret into every field of the message that is one, and reports whether
// there is any.
func plant(m protoreflect.Message, secret string, above []protoreflect.FullName) (planted bool) {
	md := m.Descriptor()
	if slices.Contains(above, md.FullName()) {
		return false
	}
	above = append(above, md.FullName())
	for i := range md.Fields().Len() {
		fd := md.Fields().Get(i)
		switch {
		case secrets.Is(fd) && fd.IsList():
			m.Mutable(fd).List().Append(protoreflect.ValueOfString(secret))
			planted = true
		case secrets.Is(fd):
			m.Set(fd, protoreflect.ValueOfString(secret))
			planted = true
		case fd.Message() == nil || fd.IsMap() || !secrets.Possible(fd.Message()):
		case fd.IsList():
			inner := m.Mutable(fd).List().AppendMutable().Message()
			planted = plant(inner, secret, above) || planted
		default:
			planted = plant(m.Mutable(fd).Message(), secret, above) || planted
		}
	}
	return planted
}
