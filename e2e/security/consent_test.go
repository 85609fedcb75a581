package security_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/turumba/turumba/e2e/wire"
	"github.com/turumba/turumba/e2e/world"
	optionsv1 "github.com/turumba/turumba/gen/turumba/options/v1"
)

const (
	notFound = "NOT_FOUND"
	// mostJoined and mostOwned are what a person may have (ADR 0049).
	mostJoined, mostOwned = 50, 5
)

// consent is S-109: nobody becomes a member, is seen or is disturbed without having said
// yes, everybody may leave, and a person has so many memberships and accounts and no more.
func consent(t *testing.T, w *world.World) {
	t.Helper()
	s := report.suite("consent")
	named, filters, raised := 0, 0, 0
	for _, over := range wire.All() {
		w.ForgetAttempts(t)
		c := &consenting{t: t, w: w, s: s, over: over}
		n, f := c.strangers()
		named, filters = named+n, filters+f
		raised += c.owners()
		for _, state := range []string{"active", "suspended", "closed"} {
			c.leaves(state)
		}
		for _, part := range []func(){c.fifty, c.owned, c.crowded} {
			w.ForgetAttempts(t) // everybody here asks from one side
			part()
		}
	}
	w.ForgetAttempts(t)
	s.coverage = fmt.Sprintf("S-109; %d fields that name a person and %d filters over two wires, %d calls that could make an Owner; leaving, %d memberships, %d accounts a person",
		named, filters, raised, mostJoined, mostOwned)
}

// consenting is the suite over one wire.
type consenting struct {
	t    *testing.T
	w    *world.World
	s    *suite
	over string
}

func (c *consenting) call(as, rpc string, body map[string]any) wire.Answer {
	c.t.Helper()
	md, err := wire.FindMethod("turumba.account.v1." + rpc)
	require.NoError(c.t, err)
	got, err := c.w.Do(c.t.Context(), c.over, wire.Call{Method: md, Token: c.w.Token(as), Body: body})
	require.NoError(c.t, err)
	return got
}

func (c *consenting) good(as, rpc string, body map[string]any) wire.Answer {
	c.t.Helper()
	got := c.call(as, rpc, body)
	require.Empty(c.t, got.Reason, "%s over %s: %s", rpc, c.over, got.Detail)
	return got
}

// answers checks the reason of a call.
func (c *consenting) answers(got wire.Answer, want, what string) {
	c.t.Helper()
	c.s.check(c.t, got.Reason == want, "S-109 over %s, %s: %q %s, expected %q", c.over, what, got.Reason, got.Detail, want)
}

func (c *consenting) sql(do func(ctx context.Context, conn *pgx.Conn)) {
	c.t.Helper()
	c.w.SQL(c.t, "turumba_account", do)
}

func (c *consenting) exec(sql string, args ...any) {
	c.t.Helper()
	c.sql(func(ctx context.Context, conn *pgx.Conn) {
		_, err := conn.Exec(ctx, sql, args...)
		require.NoError(c.t, err)
	})
}

// person makes somebody with a name and a phone number that are nobody else's, and an
// account of their own.
func (c *consenting) person(name string) (id string, secrets []string) {
	c.t.Helper()
	id = c.w.Person(c.t, name)
	given, family := "Given"+uuid.NewString()[:8], "Family"+uuid.NewString()[:8]
	phone := "+2519" + fmt.Sprintf("%08d", c.w.Instance.Now().UnixNano()%1e8)
	c.exec("UPDATE users SET given_name = $2, family_name = $3, phone = $4 WHERE id = $1", id, given, family, phone)
	c.good(name, "AccountService/CreateAccount", map[string]any{"name": "Own of " + name})
	return id, []string{id, given, family, phone}
}

// volatile is what differs between two answers to the same question.
var volatile = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f-]{27}|\d{4}-\d\d-\d\dT[0-9:.]+Z|[A-Za-z0-9_-]{43}|(known|unknown)-consent-[a-z]+(@people\.example)?`)

// strangers names somebody who never said yes, and nobody, in every request and filter of
// the contract that names a person: the answers are the same, none tells anything, and the
// person's world stays as it is.
func (c *consenting) strangers() (named, filters int) {
	c.t.Helper()
	known, unknown := "known-consent-"+c.over, "unknown-consent-"+c.over
	id, secrets := c.person(known)
	before := c.own(known)
	n := 20_000
	try := func(f fixture, field, theirs, nobodys, what string) {
		var answers []string
		for i, v := range []string{theirs, nobodys} {
			n++
			c.w.ForgetAttempts(c.t)
			vars := numbered(c.w, n)
			body := f.body(vars, "", "")
			if field == "filter" {
				body[field] = []any{v}
			} else {
				body[field] = v
				if _, both := body["user_id"]; both && field == "email" {
					delete(body, "user_id") // one or the other
				}
			}
			got, err := f.call(c.t, c.w, c.over, "owner", body)
			require.NoError(c.t, err)
			text := wire.Canonical(got.Body) + " " + got.Raw + got.Detail
			if i == 0 {
				for _, secret := range secrets {
					c.s.check(c.t, strings.Contains(wire.Canonical(body), secret) || !strings.Contains(text, secret), "S-109 over %s, %s: the answer tells %s", c.over, what, secret)
				}
			}
			text = strings.ReplaceAll(text, fmt.Sprint("s", n), "*")
			answers = append(answers, fmt.Sprint(got.HTTP, got.Code, got.Reason, volatile.ReplaceAllString(text, "*")))
		}
		c.s.check(c.t, answers[0] == answers[1], "S-109 over %s, %s: a stranger answers\n%s\nnobody\n%s", c.over, what, answers[0], answers[1])
	}
	for _, f := range loadFixtures(c.t) {
		if f.internal() || wire.AuthOf(f.method).GetOperatorGroup() != "" {
			continue
		}
		fields := wire.Input(f.method).Fields()
		for i := range fields.Len() {
			switch name := string(fields.Get(i).Name()); {
			case name == "email":
				named++
				try(f, name, known+"@people.example", unknown+"@people.example", f.RPC+"."+name)
			case isID(fields.Get(i)) && strings.HasSuffix(name, "user_id"):
				named++
				try(f, name, id, c.w.Vars["nobody"], f.RPC+"."+name)
			}
		}
		if resource := listed(f.method); resource != nil {
			for i := range resource.Fields().Len() {
				fd := resource.Fields().Get(i)
				q, _ := proto.GetExtension(fd.Options(), optionsv1.E_Query).(*optionsv1.Query)
				theirs := map[string]string{"email": known + "@people.example", "given_name": secrets[1], "family_name": secrets[2], "phone": secrets[3]}[string(fd.Name())]
				nobodys := "nobody"
				if strings.HasSuffix(string(fd.Name()), "user_id") {
					theirs, nobodys = id, c.w.Vars["nobody"]
				}
				if theirs == "" || !slices.Contains(q.GetOperators(), optionsv1.Operator_OPERATOR_EQ) || string(resource.Name()) == "Invitation" || string(resource.Name()) == "Contact" {
					continue // invitations and contacts tell what their account wrote itself
				}
				filters++
				try(f, "filter", fmt.Sprintf("%s:eq:%s", fd.Name(), theirs), fmt.Sprintf("%s:eq:%s", fd.Name(), nobodys), f.RPC+" filtered by "+string(fd.Name()))
			}
		}
	}
	c.s.check(c.t, c.own(known) == before, "S-109 over %s: the stranger's own world changed\n%s\n%s", c.over, before, c.own(known))
	made := c.call(known, "ContactService/CreateContact", map[string]any{"first_name": "Mine " + c.over})
	c.answers(made, "", "a create without an account of somebody who was invited")

	// Who accepts is seen, and not before.
	mail, nobodys := c.invitation(known+"@people.example"), c.invitation(unknown+"@people.example")
	c.s.check(c.t, mailedToken.ReplaceAllString(mail, "*") == mailedToken.ReplaceAllString(nobodys, "*"), "S-109 over %s: a stranger is mailed\n%s\nnobody\n%s", c.over, mail, nobodys)
	c.answers(c.call("owner", "UserService/GetUser", map[string]any{"user_id": id}), notFound, "an invited person before accepting")
	again := c.call("owner", "InvitationService/CreateInvitation", map[string]any{"account_id": c.w.Vars["account_id"], "email": known + "@people.example", "role_id": c.w.Vars["role_viewer"]})
	c.answers(again, "ALREADY_INVITED", "inviting again")
	c.good(known, "InvitationService/AcceptInvitation", map[string]any{"token": world.InvitationToken(mail)})
	c.answers(c.call("owner", "UserService/GetUser", map[string]any{"user_id": id}), "", "a person who accepted")
	again = c.call("owner", "InvitationService/CreateInvitation", map[string]any{"account_id": c.w.Vars["account_id"], "email": known + "@people.example", "role_id": c.w.Vars["role_viewer"]})
	c.answers(again, "ALREADY_MEMBER", "inviting a member of the own account")
	c.good(known, "AccountService/LeaveAccount", map[string]any{"account_id": c.w.Vars["account_id"]})
	c.s.check(c.t, c.own(known) != before, "S-109 over %s: the own contact is seen", c.over)
	return named, filters
}

var mailedToken = regexp.MustCompile("inv_[a-z0-9]+")

// owners names a member, and the role Owner, in every request of the contract that names a
// person, a role or an account: whoever calls, the member is an Owner once they accepted to
// be one, and not before.
func (c *consenting) owners() (tried int) {
	c.t.Helper()
	host := "raiser-" + c.over
	hostID := c.w.Person(c.t, host)
	accountID, owner, agent := c.organisation(hostID, "Raised")
	owns := func(userID string) (n int) {
		c.sql(func(ctx context.Context, conn *pgx.Conn) {
			require.NoError(c.t, conn.QueryRow(ctx, `SELECT count(*) FROM account_users m JOIN roles r ON r.id = m.role_id
				WHERE m.account_id = $1 AND r.name = 'Owner' AND m.user_id = $2`, accountID, userID).Scan(&n))
		})
		return n
	}
	for _, f := range loadFixtures(c.t) {
		rule := wire.AuthOf(f.method)
		if f.internal() || rule.GetPublic() || !strings.HasPrefix(f.RPC, "turumba.account.v1.") || strings.Contains(f.RPC, "Service/Close") {
			continue
		}
		tried++
		name := fmt.Sprint("raised-", c.over, "-", tried)
		memberID := c.w.Person(c.t, name)
		c.exec("INSERT INTO account_users (id, account_id, user_id, role_id, created_at) VALUES (gen_random_uuid(), $1, $2, $3, now())", accountID, memberID, agent)
		body := f.body(numbered(c.w, 40_000+tried), "", "")
		names := map[string]string{"account_id": accountID, "role_id": owner, "user_id": memberID, "email": name + "@people.example"}
		if strings.Contains(f.RPC, "RoleService") {
			names["role_id"], names["name"] = agent, "Owner"
		}
		for field, v := range names {
			if f.has(field) {
				body[field] = v
			}
		}
		if f.has("user_id") && f.has("email") {
			delete(body, "email") // one or the other
		}
		as := host
		if rule.GetOperatorGroup() != "" {
			as = "operator"
		}
		c.w.ForgetAttempts(c.t)
		got, err := f.call(c.t, c.w, c.over, as, body)
		require.NoError(c.t, err)
		c.s.check(c.t, owns(memberID) == 0, "S-109 over %s: %s made a member an Owner, and answered %d %s", c.over, f.RPC, got.HTTP, got.Reason)
		c.s.check(c.t, owns(hostID) == 1, "S-109 over %s: %s left no Owner", c.over, f.RPC)
	}
	name := "agreed-" + c.over
	memberID := c.w.Person(c.t, name)
	c.exec("INSERT INTO account_users (id, account_id, user_id, role_id, created_at) VALUES (gen_random_uuid(), $1, $2, $3, now())", accountID, memberID, agent)
	c.exec("UPDATE accounts SET status = 'active' WHERE id = $1", accountID)
	update := map[string]any{"account_id": accountID, "user_id": memberID, "role_id": owner}
	c.answers(c.call(host, "MembershipService/UpdateMembership", update), useInvitation, "an Owner who was not asked")
	c.good(name, "InvitationService/AcceptInvitation", map[string]any{"token": c.invited(accountID, hostID, name+"@people.example", owner)})
	c.s.check(c.t, owns(memberID) == 1, "S-109 over %s: who accepted is no Owner", c.over)
	return tried
}

// invitation is the one mail that invites an address, among others.
func (c *consenting) invitation(email string) (text string) {
	c.t.Helper()
	require.Eventually(c.t, func() bool {
		mails, err := c.w.Instance.Simulator.Messages(c.t.Context(), email, 100)
		require.NoError(c.t, err)
		n := 0
		for _, m := range mails {
			if strings.HasPrefix(m.Text, "You are invited") {
				text = m.Text
				n++
			}
		}
		c.s.check(c.t, n <= 1, "S-109 over %s: %d mails invite %s", c.over, n, email)
		return n > 0
	}, time.Minute, 20*time.Millisecond)
	return text
}

// own is what somebody sees of their own: their accounts and what is in them.
func (c *consenting) own(name string) string {
	c.t.Helper()
	text := wire.Canonical(c.good(name, "ContextService/GetContext", nil).Body)
	for _, rpc := range []string{"AccountService/ListAccounts", "ContactService/ListContacts", "UserService/ListUsers", "RoleService/ListRoles", "InvitationService/ListInvitations"} {
		text += "\n" + wire.Canonical(c.good(name, rpc, nil).Body)
	}
	return text
}

// organisation makes an account with an Owner by SQL, so that many can be made.
func (c *consenting) organisation(ownerID, name string) (accountID, ownerRole, agentRole string) {
	c.t.Helper()
	accountID, ownerRole, agentRole = uuid.NewString(), uuid.NewString(), uuid.NewString()
	c.sql(func(ctx context.Context, conn *pgx.Conn) {
		b := &pgx.Batch{}
		b.Queue("INSERT INTO accounts (id, name, created_at, updated_at) VALUES ($1, $2, now(), now())", accountID, name)
		b.Queue("INSERT INTO roles (id, account_id, name, permissions, created_at, updated_at) SELECT $1, $2, 'Owner', r.permissions, now(), now() FROM roles r WHERE r.id = $3",
			ownerRole, accountID, c.w.Vars["role_owner"])
		b.Queue("INSERT INTO roles (id, account_id, name, permissions, created_at, updated_at) VALUES ($1, $2, 'Agent', '{accounts.read,api_keys.manage,contacts.read}', now(), now())",
			agentRole, accountID)
		b.Queue("INSERT INTO account_users (id, account_id, user_id, role_id, created_at) VALUES ($1, $2, $3, $4, now())", uuid.NewString(), accountID, ownerID, ownerRole)
		require.NoError(c.t, conn.SendBatch(ctx, b).Close())
	})
	return accountID, ownerRole, agentRole
}

// invited is an invitation of somebody, by SQL, and its token.
func (c *consenting) invited(accountID, inviterID, email, roleID string) (token string) {
	c.t.Helper()
	token = "inv_" + uuid.NewString()
	hash := sha256.Sum256([]byte(token))
	c.exec(`INSERT INTO invitations (id, account_id, email, role_id, token_hash, invited_by_user_id, expires_at, created_at, updated_at)
		VALUES ($1, $2, $3, $4, $5, $6, now() + interval '1 day', now(), now())`, uuid.NewString(), accountID, email, roleID, hash[:], inviterID)
	return token
}

// leaves: somebody leaves an account in a state, and nothing of theirs acts there any more.
func (c *consenting) leaves(state string) {
	c.t.Helper()
	host, guest := fmt.Sprint("host-", state, "-", c.over), fmt.Sprint("guest-", state, "-", c.over)
	hostID := c.w.Person(c.t, host)
	guestID, _ := c.person(guest)
	accountID, _, role := c.organisation(hostID, "Left "+state)
	c.good(guest, "InvitationService/AcceptInvitation", map[string]any{"token": c.invited(accountID, hostID, guest+"@people.example", role)})
	key := c.good(guest, "ApiKeyService/CreateApiKey", map[string]any{"account_id": accountID, "name": guest, "permissions": []any{"contacts.read"}})
	keyID, _ := wire.Lookup(key.Body, "api_key.id")
	secret, _ := wire.Lookup(key.Body, "secret")
	exchange := map[string]any{"grant_type": "client_credentials", "client_id": keyID, "client_secret": secret}
	token := text(c.good("none", "AuthService/IssueToken", exchange), "access_token")
	c.good(token, "ContactService/ListContacts", nil)
	leave := map[string]any{"account_id": accountID}
	c.answers(c.call(token, "AccountService/LeaveAccount", leave), "PERSON_REQUIRED", "a key that leaves")
	c.exec("UPDATE accounts SET status = $2 WHERE id = $1", accountID, state)

	c.answers(c.call("outsider", "AccountService/LeaveAccount", leave), notFound, "somebody who is no member")
	if state != "closed" {
		c.answers(c.call(host, "AccountService/LeaveAccount", leave), "LAST_OWNER", "the last Owner of an account that is "+state)
	}
	c.answers(c.call(guest, "AccountService/LeaveAccount", leave), "", "leaving an account that is "+state)
	c.answers(c.call(guest, "AccountService/LeaveAccount", leave), notFound, "leaving again")
	c.answers(c.call(guest, "AccountService/GetAccount", leave), notFound, "what was left")
	c.answers(c.call("none", "AuthService/IssueToken", exchange), "INVALID_CREDENTIALS", "the key of who left")
	begin := c.w.Instance.Now()
	require.Eventually(c.t, func() bool { return c.call(token, "ContactService/ListContacts", nil).Reason != "" }, time.Minute, 20*time.Millisecond)
	c.s.check(c.t, c.w.Instance.Now().Sub(begin) < 5*time.Second, "S-109 over %s: a token of a key works on for 5 s", c.over)
	events := wire.Canonical(c.good(host, "AuditEventService/ListAuditEvents", map[string]any{"filter": []any{"account_id:eq:" + accountID}, "limit": 1}).Body)
	c.s.check(c.t, strings.Contains(events, "membership.leave") && strings.Contains(events, guestID), "S-109 over %s: the audit log does not tell who left: %s", c.over, events)
	if state == "closed" {
		c.answers(c.call(host, "AccountService/LeaveAccount", leave), "", "the last Owner of a closed account")
		c.answers(c.call(host, "AccountService/LeaveAccount", leave), notFound, "the last Owner, leaving again")
	}
}

// joined is how many accounts somebody is in.
func (c *consenting) joined(userID string) (n int) {
	c.t.Helper()
	c.sql(func(ctx context.Context, conn *pgx.Conn) {
		require.NoError(c.t, conn.QueryRow(ctx, "SELECT count(*) FROM account_users WHERE user_id = $1", userID).Scan(&n))
	})
	return n
}

// rivals makes calls at once and counts their reasons.
func (c *consenting) rivals(n int, call func(i int) wire.Answer) map[string]int {
	var mu sync.Mutex
	var wg sync.WaitGroup
	reasons := map[string]int{}
	for i := range n {
		wg.Go(func() {
			got := call(i)
			mu.Lock()
			defer mu.Unlock()
			reasons[got.Reason]++
			if got.Reason == exceeded {
				c.s.check(c.t, strings.Contains(got.Detail, "at most"), "S-109 over %s: the limit is not told: %s", c.over, got.Detail)
			}
		})
	}
	wg.Wait()
	return reasons
}

// fifty: of more invitations than a person may accept, accepted all at once, exactly as
// many are as fit.
func (c *consenting) fifty() {
	c.t.Helper()
	inviter := c.w.Person(c.t, "inviter-"+c.over)
	name := "popular-" + c.over
	id, _ := c.person(name)
	tokens := make([]string, mostJoined+10)
	var accounts []string
	for i := range tokens {
		accountID, _, role := c.organisation(inviter, fmt.Sprint("Fifty ", i))
		accounts = append(accounts, accountID)
		tokens[i] = c.invited(accountID, inviter, name+"@people.example", role)
	}
	var left sync.Map // the tokens that are still good
	reasons := c.rivals(len(tokens), func(i int) wire.Answer {
		got := c.call(name, "InvitationService/AcceptInvitation", map[string]any{"token": tokens[i]})
		if got.Reason != "" {
			left.Store(tokens[i], true)
		}
		return got
	})
	c.s.check(c.t, reasons[""] == mostJoined-1 && reasons[exceeded] == 11 && c.joined(id) == mostJoined, "S-109 over %s: %v, %d memberships", c.over, reasons, c.joined(id))
	c.answers(c.call(name, "AccountService/CreateAccount", map[string]any{"name": "One more"}), exceeded, "an account more than 50")
	for _, accountID := range accounts {
		if c.call(name, "AccountService/LeaveAccount", map[string]any{"account_id": accountID}).Reason == "" {
			break
		}
	}
	var again []string
	left.Range(func(token, _ any) bool {
		again = append(again, token.(string))
		return true
	})
	free := c.rivals(len(again), func(i int) wire.Answer {
		return c.call(name, "InvitationService/AcceptInvitation", map[string]any{"token": again[i]})
	})
	c.s.check(c.t, free[""] == 1 && c.joined(id) == mostJoined, "S-109 over %s: after leaving one: %v", c.over, free)
}

// owned: a person makes, or accepts to own, so many accounts and no more, also when others
// took over what they made.
func (c *consenting) owned() {
	c.t.Helper()
	inviter := c.w.Person(c.t, "seller-"+c.over)
	name := "founder-" + c.over
	id := c.w.Person(c.t, name)
	var tokens []string
	for i := range mostOwned {
		accountID, owner, _ := c.organisation(inviter, fmt.Sprint("Sold ", i))
		tokens = append(tokens, c.invited(accountID, inviter, name+"@people.example", owner))
	}
	reasons := c.rivals(2*mostOwned, func(i int) wire.Answer {
		if i < mostOwned {
			return c.call(name, "InvitationService/AcceptInvitation", map[string]any{"token": tokens[i]})
		}
		return c.call(name, "AccountService/CreateAccount", map[string]any{"name": fmt.Sprint("Made ", i)})
	})
	c.s.check(c.t, reasons[""] == mostOwned && reasons[exceeded] == mostOwned && c.joined(id) == mostOwned, "S-109 over %s: %v, %d accounts", c.over, reasons, c.joined(id))

	serial := "serial-" + c.over
	c.w.Person(c.t, serial)
	for range mostOwned {
		made := text(c.good(serial, "AccountService/CreateAccount", map[string]any{"name": "Handed over"}), "id")
		c.exec(`INSERT INTO account_users (id, account_id, user_id, role_id, created_at)
			SELECT gen_random_uuid(), r.account_id, $2, r.id, now() FROM roles r WHERE r.account_id = $1 AND r.name = 'Owner'`, made, inviter)
		c.good(serial, "AccountService/LeaveAccount", map[string]any{"account_id": made})
	}
	c.answers(c.call(serial, "AccountService/CreateAccount", map[string]any{"name": "Another"}), exceeded, "accounts that were handed over")
	accountID, _, role := c.organisation(inviter, "Joined")
	c.good(serial, "InvitationService/AcceptInvitation", map[string]any{"token": c.invited(accountID, inviter, serial+"@people.example", role)})
}

// crowded: who is in more accounts than 50 from before reads lists, of those joined first,
// reaches the others by filters, and may leave them.
func (c *consenting) crowded() {
	c.t.Helper()
	adder := c.w.Person(c.t, "adder-"+c.over)
	name := "crowded-" + c.over
	id, _ := c.person(name)
	c.good(name, "ContactService/CreateContact", map[string]any{"first_name": "Mine"})
	var last string
	for i := range mostJoined + 5 {
		accountID, _, role := c.organisation(adder, fmt.Sprint("Crowd ", i))
		c.exec("INSERT INTO account_users (id, account_id, user_id, role_id, created_at) VALUES (gen_random_uuid(), $1, $2, $3, now() + make_interval(secs => $4))", accountID, id, role, i)
		last = accountID
	}
	for _, f := range loadFixtures(c.t) {
		if listed(f.method) == nil || f.internal() || wire.AuthOf(f.method).GetOperatorGroup() != "" || len(f.leaves()) > 0 {
			continue
		}
		require.Eventually(c.t, func() bool { // contexts are kept for 5 s
			got, err := f.call(c.t, c.w, c.over, name, map[string]any{})
			require.NoError(c.t, err)
			return got.Reason != "INVALID_FILTER"
		}, time.Minute, 20*time.Millisecond, f.RPC)
		got, err := f.call(c.t, c.w, c.over, name, map[string]any{})
		require.NoError(c.t, err)
		c.answers(got, "", f.RPC+" of somebody in more than 50 accounts")
	}
	mine := wire.Canonical(c.good(name, "ContactService/ListContacts", nil).Body)
	c.s.check(c.t, strings.Contains(mine, "Mine"), "S-109 over %s: the own contacts are not listed: %s", c.over, mine)
	c.answers(c.call(name, "RoleService/ListRoles", map[string]any{"filter": []any{"account_id:eq:" + last}}), "", "a list of an account beyond 50")
	c.answers(c.call(name, "AccountService/LeaveAccount", map[string]any{"account_id": last}), "", "leaving an account beyond 50")
}
