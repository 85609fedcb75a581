package security_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/turumba/turumba/e2e/wire"
	"github.com/turumba/turumba/e2e/world"
	accountv1 "github.com/turumba/turumba/gen/turumba/account/v1"
	messagingv1 "github.com/turumba/turumba/gen/turumba/messaging/v1"
	account "github.com/turumba/turumba/services/account"
)

// actor is somebody who calls.
type actor struct {
	name string
	// home is the prefix of the variables of the actor's own organisation.
	home string
	// service is the identity of a service instead of a user.
	service string
}

// actors are everybody that the tenant matrix lets try.
var actors = []actor{
	{name: "owner"},
	{name: "agent"},
	{name: "viewer"},
	{name: "outsider", home: foreign},
	{name: "both"},
	{name: "stranger"},
	{name: "suspended"},
	{name: "none"},
	{name: "worker", service: "worker"},
}

// prepare makes the actors and the things that the fixtures need besides.
func prepare(t *testing.T, w *world.World) {
	t.Helper()
	roles := map[string][]string{}
	for _, r := range account.DefaultRoles("", w.Instance.Now()) {
		roles[r.Name] = r.Permissions
	}
	// The matrices log out too: their callers have tokens that no logout ends.
	for _, name := range []string{"owner", "viewer", "outsider"} {
		w.Lasting(t, name)
	}
	ours, theirs := w.Vars["account_id"], w.Vars["foreign_account_id"]
	w.Person(t, "agent", world.Hold{AccountID: ours, Permissions: roles[account.RoleAgent]})
	w.Person(t, "both", world.Hold{AccountID: ours, Permissions: roles[account.RoleOwner]}, world.Hold{AccountID: theirs, Permissions: roles[account.RoleViewer]})
	w.Person(t, "stranger")
	suspended := w.Person(t, "suspended", world.Hold{AccountID: ours, Permissions: roles[account.RoleOwner]})
	w.SQL(t, "turumba_account", func(ctx context.Context, conn *pgx.Conn) {
		_, err := conn.Exec(ctx, "UPDATE users SET is_active = false WHERE id = $1", suspended)
		require.NoError(t, err)
	})
	w.Vars["foreign_owner_user_id"] = w.Vars["outsider_user_id"]
	w.Vars["newcomer_user_id"] = w.Person(t, "newcomer", world.Hold{AccountID: ours, Permissions: []string{}})
	w.Vars["sender_user_id"] = w.Vars["owner_user_id"]
	w.Vars["role_id"] = w.Vars["role_viewer"]
	spare(t, w, "owner", "")
	spare(t, w, "outsider", foreign)
}

// spare makes a second channel and a second draft, for what changes their state.
func spare(t *testing.T, w *world.World, name, prefix string) {
	t.Helper()
	ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+w.Tokens[name])
	host, from := "smtp.golden.example", "spare@golden.example"
	ch, err := messagingv1.NewChannelServiceClient(w.Conn).CreateChannel(ctx, &messagingv1.CreateChannelRequest{
		AccountId: w.Vars[prefix+"account_id"], Name: "Spare " + prefix, Credentials: &messagingv1.ChannelCredentials{
			Kind: &messagingv1.ChannelCredentials_Smtp{Smtp: &messagingv1.SmtpCredentials{Host: &host, FromEmail: &from}},
		},
	})
	require.NoError(t, err)
	w.Vars[prefix+"spare_channel_id"] = ch.GetChannel().GetId()
	_, err = messagingv1.NewChannelServiceClient(w.Conn).DisableChannel(ctx, &messagingv1.DisableChannelRequest{ChannelId: ch.GetChannel().GetId()})
	require.NoError(t, err)
	held, err := messagingv1.NewMessageServiceClient(w.Conn).CreateMessage(ctx, &messagingv1.CreateMessageRequest{
		AccountId: w.Vars[prefix+"account_id"], ChannelId: ch.GetChannel().GetId(), DeliveryAddress: "held@golden.example", MessageBody: "x",
	})
	require.NoError(t, err)
	w.Vars[prefix+"held_message_id"] = held.GetMessage().GetId()
	draft, err := messagingv1.NewGroupMessageServiceClient(w.Conn).CreateGroupMessage(ctx, &messagingv1.CreateGroupMessageRequest{
		AccountId: w.Vars[prefix+"account_id"], Name: "Spare", ChannelId: w.Vars[prefix+"channel_id"], TemplateId: w.Vars[prefix+"template_id"],
		ContactGroupIds: []string{w.Vars[prefix+"contact_group_id"]},
	})
	require.NoError(t, err)
	w.Vars[prefix+"spare_draft_id"] = draft.GetGroupMessage().GetId()
	tp, err := messagingv1.NewTemplateServiceClient(w.Conn).CreateTemplate(ctx, &messagingv1.CreateTemplateRequest{
		AccountId: w.Vars[prefix+"account_id"], Name: "Spare", Body: "hello",
	})
	require.NoError(t, err)
	w.Vars[prefix+"spare_template_id"] = tp.GetTemplate().GetId()
	file, err := messagingv1.NewTemplateServiceClient(w.Conn).CreateTemplateAttachment(ctx, &messagingv1.CreateTemplateAttachmentRequest{
		TemplateId: tp.GetTemplate().GetId(), Filename: "spare.txt", Content: []byte("spare"),
	})
	require.NoError(t, err)
	w.Vars[prefix+"spare_attachment_id"] = file.GetAttachment().GetId()
	key, err := accountv1.NewApiKeyServiceClient(w.Conn).CreateApiKey(ctx, &accountv1.CreateApiKeyRequest{
		AccountId: w.Vars[prefix+"account_id"], Name: "Spare", Permissions: []string{"contacts.read"},
	})
	require.NoError(t, err)
	w.Vars[prefix+"api_key_id"] = key.GetApiKey().GetId()
	role, err := accountv1.NewRoleServiceClient(w.Conn).CreateRole(ctx, &accountv1.CreateRoleRequest{AccountId: w.Vars[prefix+"account_id"], Name: "Spare"})
	require.NoError(t, err)
	w.Vars[prefix+"spare_role_id"] = role.GetRole().GetId()
	invitation, err := accountv1.NewInvitationServiceClient(w.Conn).CreateInvitation(ctx, &accountv1.CreateInvitationRequest{
		AccountId: w.Vars[prefix+"account_id"], Email: prefix + "guest@people.example", RoleId: role.GetRole().GetId(),
	})
	require.NoError(t, err)
	w.Vars[prefix+"invitation_id"] = invitation.GetInvitation().GetId()
	events, err := accountv1.NewAuditEventServiceClient(w.Conn).ListAuditEvents(ctx, &accountv1.ListAuditEventsRequest{Limit: 1})
	require.NoError(t, err)
	w.Vars[prefix+"audit_event_id"] = events.GetData()[0].GetId()
}

// call sends a request of the fixture's RPC as the named actor.
func (f fixture) call(t *testing.T, w *world.World, over, name string, body map[string]any) (wire.Answer, error) {
	t.Helper()
	return f.callAs(t, w, over, actor{name: name}, body)
}

func (f fixture) callAs(t *testing.T, w *world.World, over string, a actor, body map[string]any) (wire.Answer, error) {
	t.Helper()
	if f.internal() && a.service == "" && a.name == "owner" && t.Name() == "TestSecurity/fixtures" {
		a.service = "worker" // the owner of an internal RPC is the service that it is for
	}
	target, token := w.Target, w.Token(a.name)
	if a.service != "" {
		conn := w.Instance.AccountConn(a.service)
		target.Conns, token = map[string]grpc.ClientConnInterface{"turumba.account.v1": conn, "turumba.mesh.v1": conn, "turumba.messaging.v1": w.Conn}, ""
	}
	return target.Do(t.Context(), over, wire.Call{Method: f.method, Token: token, Body: body})
}

// erased waits until the worker has no erasure of an organisation to do: from then on
// only a call can change its rows.
func erased(t *testing.T, w *world.World, accountID string) {
	t.Helper()
	w.SQL(t, "turumba_messaging", func(ctx context.Context, conn *pgx.Conn) {
		require.Eventually(t, func() bool {
			var left int
			err := conn.QueryRow(ctx, "SELECT count(*) FROM erasure_jobs WHERE account_id = $1", accountID).Scan(&left)
			return err == nil && left == 0
		}, time.Minute, 50*time.Millisecond, "erasures end")
	})
}

// rowsOf is everything that the databases hold of an organisation at rest, table by
// table, as one text per table.
func rowsOf(t *testing.T, w *world.World, accountID string) map[string]string {
	t.Helper()
	erased(t, w, accountID)
	out := map[string]string{}
	for _, db := range []string{"turumba_account", "turumba_messaging"} {
		w.SQL(t, db, func(ctx context.Context, conn *pgx.Conn) {
			rows, err := conn.Query(ctx, `
				SELECT c.relname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'account_id'
				WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relnamespace = 'public'::regnamespace`)
			require.NoError(t, err)
			tables, err := pgx.CollectRows(rows, pgx.RowTo[string])
			require.NoError(t, err)
			for _, table := range tables {
				row := "r"
				if table == "dispatch_chunks" { // workers look at what they hold again and again
					row = "(to_jsonb(r) - '{epoch,lease_until,not_before,state}'::text[])"
				}
				var digest string
				err := conn.QueryRow(ctx, fmt.Sprintf("SELECT coalesce(string_agg(%s::text, E'\\n' ORDER BY r::text), '') FROM %s r WHERE account_id = $1",
					row, pgx.Identifier{table}.Sanitize()), accountID).Scan(&digest)
				require.NoError(t, err)
				out[table] = digest
			}
		})
	}
	return out
}

// leaked are the ids of others that an answer holds.
func leaked(got wire.Answer, secret []string) (out []string) {
	b, err := json.Marshal(got.Body)
	if err != nil {
		return []string{err.Error()}
	}
	text := string(b) + got.Raw + got.Detail
	for _, id := range secret {
		if strings.Contains(text, id) {
			out = append(out, id)
		}
	}
	return out
}
