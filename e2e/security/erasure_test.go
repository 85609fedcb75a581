package security_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/e2e/wire"
	"github.com/turumba/turumba/e2e/world"
)

// TestErasure is the erasure of a person in the whole mesh: whatever messages were told
// of them, over both wires, in sends and with idempotency keys, is in no row of the
// database afterwards.
func TestErasure(t *testing.T) {
	t.Parallel()
	s := report.suite("erasure")
	w := world.New(t)
	g := &forgetting{t: t, w: w}
	for _, over := range wire.All() {
		g.person(over)
	}
	require.Contains(t, string(dump(t, w, "turumba_messaging")), "KEPT", "the dump is what was to be searched")
	for _, over := range wire.All() {
		g.forget(over)
	}
	rows := dump(t, w, "turumba_messaging")
	for _, secret := range g.secrets {
		form := leaks(rows, secret)
		s.check(t, form == "", "%s is in the database, as %s", secret, form)
	}
	require.Contains(t, string(rows), "KEPT", "what is told of others stays")
	s.coverage = fmt.Sprintf("%d secrets in %d KiB", len(g.secrets), len(rows)>>10)
}

// forgetting makes messages for persons, and erases them.
type forgetting struct {
	t       *testing.T
	w       *world.World
	secrets []string
}

func (g *forgetting) call(over, rpc, key string, body map[string]any) map[string]any {
	g.t.Helper()
	md, err := wire.FindMethod("turumba.messaging.v1." + rpc)
	require.NoError(g.t, err)
	got, err := g.w.Do(g.t.Context(), over, wire.Call{Method: md, Body: body, Token: g.w.Token("owner"), Key: key})
	require.NoError(g.t, err)
	require.Empty(g.t, got.Reason, "%s over %s: %s", rpc, over, got.Detail)
	fields, _ := got.Body.(map[string]any)
	return fields
}

// secret is told of a person.
func (g *forgetting) secret() string {
	g.secrets = append(g.secrets, "canary-"+uuid.NewString())
	return g.secrets[len(g.secrets)-1]
}

func (g *forgetting) address(over string) string { return "forgotten-" + over + "@golden.example" }

// message is one to the person.
func (g *forgetting) message(over string) map[string]any {
	return map[string]any{
		"account_id": g.w.Vars["account_id"], "channel_id": g.w.Vars["channel_id"], "delivery_address": g.address(over),
		"message_body": g.secret(), "subject": g.secret(), "metadata": map[string]any{"note": g.secret()},
	}
}

// person is written to in every way that there is.
func (g *forgetting) person(over string) {
	g.t.Helper()
	g.secrets = append(g.secrets, g.address(over))
	one := g.call(over, "MessageService/CreateMessage", "one-"+over, g.message(over))
	many := g.message(over)
	delete(many, "account_id")
	g.call(over, "MessageService/BatchCreateMessages", "many-"+over, map[string]any{"account_id": g.w.Vars["account_id"], "messages": []any{many}})
	send := g.call(over, "GroupMessageService/CreateGroupMessage", "send-"+over, map[string]any{
		"account_id": g.w.Vars["account_id"], "channel_id": g.w.Vars["channel_id"], "message_body": "KEPT for {NAME}: {CODE}", "status": "queued",
		"recipients": []any{
			map[string]any{"address": g.address(over), "name": g.secret(), "values": map[string]any{"CODE": g.secret()}},
			map[string]any{"address": "KEPT-" + over + "@golden.example", "name": "KEPT"},
		},
	})
	g.until(over, "MessageService/GetMessage", map[string]any{"message_id": one["id"]}, "sent")
	g.until(over, "GroupMessageService/GetGroupMessage", map[string]any{"group_message_id": send["id"]}, "completed")
}

// forget erases by the address, as somebody would write it.
func (g *forgetting) forget(over string) {
	g.t.Helper()
	e := g.call(over, "MessageErasureService/CreateMessageErasure", "erase-"+over, map[string]any{
		"account_id": g.w.Vars["account_id"], "delivery_address": "Forgotten-" + over + "@Golden.example",
	})
	done := g.until(over, "MessageErasureService/GetMessageErasure", map[string]any{"message_erasure_id": e["id"]}, "completed")
	require.Equal(g.t, "3", fmt.Sprint(done["erased_count"]))
}

func (g *forgetting) until(over, rpc string, body map[string]any, status string) (last map[string]any) {
	g.t.Helper()
	require.Eventually(g.t, func() bool {
		last = g.call(over, rpc, "", body)
		return last["status"] == status
	}, time.Minute, 50*time.Millisecond, "%s over %s", rpc, over)
	return last
}
