package security_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/e2e/wire"
	"github.com/turumba/turumba/e2e/world"
)

// names is a column that names a person or an API key. Either something acts by it, and
// is tried for who lost the right to, or it only records, for the reason given.
type names struct {
	acts    func(*stand)
	records string
}

// people are all the columns of both databases that name a person or a key. A new one
// fails the suite until it says here which of the two it is.
var people = map[string]names{
	"turumba_account.api_keys.created_by_user_id":           {acts: (*stand).key},
	"turumba_account.invitations.invited_by_user_id":        {acts: (*stand).invitation},
	"turumba_account.contact_imports.created_by_user_id":    {acts: func(a *stand) { a.upload(false) }},
	"turumba_account.contact_imports.created_by_api_key_id": {acts: func(a *stand) { a.upload(true) }},

	"turumba_account.account_users.user_id":         {records: "the membership itself, which acting_members reads"},
	"turumba_account.accounts.created_by_user_id":   {records: "among whose accounts it counts"},
	"turumba_account.acting_members.user_id":        {records: "the view that all which acts asks"},
	"turumba_account.sessions.user_id":              {records: "the sessions of the person: suite sessions"},
	"turumba_account.refresh_tokens.user_id":        {records: "belong to a session: suite sessions"},
	"turumba_account.login_challenges.user_id":      {records: "belong to a credential epoch: suite sessions"},
	"turumba_account.password_resets.user_id":       {records: "belong to a credential epoch: suite sessions"},
	"turumba_account.user_totp.user_id":             {records: "the person's second factor"},
	"turumba_account.recovery_codes.user_id":        {records: "the person's second factor"},
	"turumba_account.pending_registrations.user_id": {records: "whom a registration became"},
	"turumba_account.audit_events.actor_user_id":    {records: "who did it"},
	"turumba_account.audit_events.actor_api_key_id": {records: "what did it"},

	"turumba_messaging.messages.sent_by_user_id":               {records: "a queued message belongs to the account and goes on (decision G4)"},
	"turumba_messaging.group_messages.created_by_user_id":      {records: "a queued send belongs to the account and goes on (decision G4)"},
	"turumba_messaging.templates.created_by_user_id":           {records: "who wrote it"},
	"turumba_messaging.template_rows.created_by_user_id":       {records: "who wrote it"},
	"turumba_messaging.suppressions.created_by_user_id":        {records: "who added it; it only keeps messages back"},
	"turumba_messaging.message_erasures.created_by_user_id":    {records: "an erasure that was asked for belongs to the account: stopping it would keep a person's data"},
	"turumba_messaging.message_erasures.created_by_api_key_id": {records: "an erasure that was asked for belongs to the account"},
}

// lost is how somebody loses the right to act.
var lost = map[string]string{
	"disabled": "UPDATE users SET is_active = false WHERE id = $1",
	"removed":  "DELETE FROM account_users WHERE user_id = $1",
	"demoted":  "UPDATE roles SET permissions = '{templates.read}' WHERE id IN (SELECT role_id FROM account_users WHERE user_id = $1)",
}

// stand is somebody who starts something and then loses the right to it.
type stand struct {
	t          *testing.T
	w          *world.World
	s          *suite
	name, what string
	id         string
}

// actingForAPerson is S-108: whatever acts for a person asks, when it acts, whether they
// still may.
func actingForAPerson(t *testing.T, w *world.World) {
	t.Helper()
	s := report.suite("acting for a person")
	found := map[string]bool{}
	for _, database := range []string{"turumba_account", "turumba_messaging"} {
		w.SQL(t, database, func(ctx context.Context, conn *pgx.Conn) {
			rows, err := conn.Query(ctx, `SELECT c.relname || '.' || column_name FROM information_schema.columns i
				JOIN pg_class c ON c.oid = format('%I.%I', i.table_schema, i.table_name)::regclass AND NOT c.relispartition
				WHERE table_schema = 'public' AND data_type IN ('uuid', 'text') AND (column_name ~ '(user|person|api_key|member|owner|actor|author|inviter)_id$' OR column_name ~ '_by(_id)?$')`)
			require.NoError(t, err)
			columns, err := pgx.CollectRows(rows, pgx.RowTo[string])
			require.NoError(t, err)
			for _, c := range columns {
				found[database+"."+c] = true
				_, listed := people[database+"."+c]
				s.check(t, listed, "S-108 %s.%s names a person: say in acting_test.go whether something acts by it", database, c)
			}
		})
	}
	acting := 0
	for column, n := range people {
		s.check(t, found[column], "S-108 %s is not there", column)
		s.check(t, (n.acts == nil) != (n.records == ""), "S-108 %s: acts or records, one of them", column)
		if n.acts == nil {
			continue
		}
		acting++
		for what := range lost {
			w.ForgetAttempts(t)
			a := &stand{t: t, w: w, s: s, what: column + " of somebody " + what, name: strings.NewReplacer(".", "-", "_", "-").Replace(column) + "-" + what}
			a.id = w.Person(t, a.name, world.Hold{AccountID: w.Vars["account_id"], Permissions: []string{
				"api_keys.manage", "contacts.import", "contacts.read", "invitations.manage",
			}})
			n.acts(a)
		}
	}
	s.coverage = fmt.Sprintf("S-108; %d columns name people, %d act, each of somebody disabled, removed, demoted", len(people), acting)
}

// loses takes the right away, as another replica would.
func (a *stand) loses() {
	a.t.Helper()
	what := a.what[strings.LastIndexByte(a.what, ' ')+1:]
	a.w.SQL(a.t, "turumba_account", func(ctx context.Context, conn *pgx.Conn) {
		_, err := conn.Exec(ctx, lost[what], a.id)
		require.NoError(a.t, err)
	})
}

func (a *stand) call(as, rpc string, body map[string]any) wire.Answer {
	a.t.Helper()
	md, err := wire.FindMethod("turumba.account.v1." + rpc)
	require.NoError(a.t, err)
	got, err := a.w.Do(a.t.Context(), wire.GRPC, wire.Call{Method: md, Token: a.w.Token(as), Body: body})
	require.NoError(a.t, err)
	return got
}

func (a *stand) good(as, rpc string, body map[string]any) map[string]any {
	a.t.Helper()
	got := a.call(as, rpc, body)
	require.Empty(a.t, got.Reason, "%s: %s: %s", a.what, rpc, got.Detail)
	fields, _ := got.Body.(map[string]any)
	return fields
}

// soon waits for a refusal, at most the five seconds that are promised.
func (a *stand) soon(do func() wire.Answer, reasons ...string) {
	a.t.Helper()
	begin := a.w.Instance.Now()
	require.Eventually(a.t, func() bool { return do().Reason != "" }, time.Minute, 20*time.Millisecond, a.what)
	a.s.check(a.t, a.w.Instance.Now().Sub(begin) < 5*time.Second, "S-108 %s: still after 5 s", a.what)
	a.s.check(a.t, slices.Contains(reasons, do().Reason), "S-108 %s: %s", a.what, do().Reason)
}

// token is an API key of the person, and a token of it.
func (a *stand) token(permission string) (id, secret, token string) {
	a.t.Helper()
	made := a.good(a.name, "ApiKeyService/CreateApiKey", map[string]any{"account_id": a.w.Vars["account_id"], "name": a.name, "permissions": []any{permission}})
	key, _ := made["api_key"].(map[string]any)
	if key == nil {
		key = made
	}
	id, secret = fmt.Sprint(key["id"]), fmt.Sprint(made["secret"])
	issued := a.good("none", "AuthService/IssueToken", map[string]any{"grant_type": "client_credentials", "client_id": id, "client_secret": secret})
	return id, secret, fmt.Sprint(issued["access_token"])
}

// key: neither the token of a key works, nor the key for another one.
func (a *stand) key() {
	id, secret, token := a.token("contacts.read")
	list := func() wire.Answer { return a.call(token, "ContactService/ListContacts", nil) }
	require.Empty(a.t, list().Reason, a.what)
	a.loses()
	got := a.call("none", "AuthService/IssueToken", map[string]any{"grant_type": "client_credentials", "client_id": id, "client_secret": secret})
	a.s.check(a.t, got.Reason == "INVALID_CREDENTIALS", "S-108 %s: the exchange answers %q", a.what, got.Reason)
	a.soon(list, "UNAUTHENTICATED", "PERMISSION_DENIED")
}

// invitation: nobody joins by it.
func (a *stand) invitation() {
	guest := "guest-" + a.name
	a.w.Person(a.t, guest)
	role := ""
	a.w.SQL(a.t, "turumba_account", func(ctx context.Context, conn *pgx.Conn) {
		require.NoError(a.t, conn.QueryRow(ctx, "SELECT role_id::text FROM account_users WHERE user_id = $1", a.id).Scan(&role))
	})
	a.good(a.name, "InvitationService/CreateInvitation", map[string]any{"account_id": a.w.Vars["account_id"], "email": guest + "@people.example", "role_id": role})
	token := world.InvitationToken(a.w.Mail(a.t, guest+"@people.example", "You are invited"))
	a.loses()
	got := a.call(guest, "InvitationService/AcceptInvitation", map[string]any{"token": token})
	a.s.check(a.t, got.Reason == "INVITATION_OVER", "S-108 %s: accepting answers %q", a.what, got.Reason)
}

// upload: a file that waits imports nothing.
func (a *stand) upload(byKey bool) {
	token := a.w.Token(a.name)
	if byKey {
		_, _, token = a.token("contacts.import")
	}
	hold := func(sql ...string) {
		a.w.SQL(a.t, "turumba_account", func(ctx context.Context, conn *pgx.Conn) {
			for _, q := range sql {
				_, err := conn.Exec(ctx, q)
				require.NoError(a.t, err)
			}
		})
	}
	hold("CREATE OR REPLACE FUNCTION hold_imports() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.lease_until := 'infinity'; RETURN NEW; END $$",
		"CREATE TRIGGER hold_imports BEFORE INSERT ON contact_import_jobs FOR EACH ROW EXECUTE FUNCTION hold_imports()")
	req, err := http.NewRequestWithContext(a.t.Context(), http.MethodPost, a.w.BaseURL+"/v1/contacts/import?account_id="+a.w.Vars["account_id"],
		strings.NewReader("first_name,email\nNobody,"+a.name+"@imported.example\n"))
	require.NoError(a.t, err)
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", "text/csv")
	res, err := a.w.HTTP.Do(req)
	require.NoError(a.t, err)
	var im struct {
		ID string `json:"id"`
	}
	require.NoError(a.t, json.NewDecoder(res.Body).Decode(&im))
	require.NoError(a.t, res.Body.Close())
	require.NotEmpty(a.t, im.ID, "%s: %s", a.what, res.Status)
	a.loses()
	hold("DROP TRIGGER hold_imports ON contact_import_jobs", "UPDATE contact_import_jobs SET lease_until = '-infinity' WHERE lease_until = 'infinity'")
	var status string
	var created int
	require.Eventually(a.t, func() bool {
		a.w.SQL(a.t, "turumba_account", func(ctx context.Context, conn *pgx.Conn) {
			require.NoError(a.t, conn.QueryRow(ctx, "SELECT status, created_count FROM contact_imports WHERE id = $1", im.ID).Scan(&status, &created))
		})
		return status == "failed" || status == "completed"
	}, time.Minute, 20*time.Millisecond, a.what)
	a.s.check(a.t, status == "failed" && created == 0, "S-108 %s: %s with %d contacts", a.what, status, created)
}
