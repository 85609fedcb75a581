package security_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/turumba/turumba/e2e/wire"
	"github.com/turumba/turumba/e2e/world"
	"github.com/turumba/turumba/kit/apierr"
)

// authCall is one call of the AuthService by its name.
func authCall(t *testing.T, w *world.World, over, rpc string, body map[string]any, header map[string]string) wire.Answer {
	t.Helper()
	md, err := wire.FindMethod("turumba.account.v1.AuthService/" + rpc)
	require.NoError(t, err)
	got, err := w.Do(t.Context(), over, wire.Call{Method: md, Body: body, Header: header})
	require.NoError(t, err)
	return got
}

// logins is S-100 and S-102: answers that do not tell who exists, and limits that
// no header resets.
func logins(t *testing.T, w *world.World) {
	t.Helper()
	s := report.suite("logins")
	slowest := time.Duration(0)
	for _, over := range wire.All() {
		slowest = max(slowest, enumeration(t, w, s, over))
		limits(t, w, s, over)
	}
	s.coverage = fmt.Sprintf("S-100, S-102; medians for known and unknown differ by at most %s", slowest.Round(10*time.Microsecond))
}

// enumeration asks for an address that exists, one that does not, and one of a
// user who may not log in. It returns the greatest difference of medians.
func enumeration(t *testing.T, w *world.World, s *suite, over string) time.Duration {
	t.Helper()
	tries := 5
	if full {
		tries = 100
	}
	n := 0
	body := func(rpc, email string) map[string]any {
		n++
		request := map[string]any{"email": email}
		switch rpc {
		case "ResendVerification":
			request["registration_token"] = "of nothing"
		case "Login":
			request["password"] = "wrong password"
		case "ResetPassword":
			request["code"], request["new_password"] = "wrong", "seven quiet mountain goats"
		case "Register":
			request["password"], request["full_name"], request["account_name"] = "seven quiet mountain goats", "Some Body", "Org"
		}
		return request
	}
	worst := time.Duration(0)
	for _, rpc := range []string{"Login", "ForgotPassword", "ResendVerification", "ResetPassword", "Register"} {
		medians := map[string]time.Duration{}
		answers := map[string]wire.Answer{}
		for _, who := range []string{"known", "unknown", "disabled"} {
			var took []time.Duration
			times := tries
			if rpc == "Register" {
				times = 5 // more of one address may not wait for their codes
			}
			for range times {
				w.ForgetAttempts(t)
				email := map[string]string{"known": w.Vars["spare_email"], "disabled": "suspended@people.example", "unknown": fmt.Sprintf("ghost-%s-%d@golden.example", over, n)}[who]
				request := body(rpc, email)
				begin := w.Instance.Now()
				answers[who] = authCall(t, w, over, rpc, request, nil)
				took = append(took, w.Instance.Now().Sub(begin))
				if fields, ok := answers[who].Body.(map[string]any); ok && rpc == "Register" {
					token, _ := fields["registration_token"].(string)
					fields["registration_token"] = len(token) // it is random
				}
			}
			slices.Sort(took)
			medians[who] = took[len(took)/2]
		}
		for _, who := range []string{"unknown", "disabled"} {
			same := wire.Canonical(answers[who]) == wire.Canonical(answers["known"])
			s.check(t, same, "S-100 %s over %s: %s answers %v, known %v", rpc, over, who, answers[who], answers["known"])
			worst = max(worst, (medians[who] - medians["known"]).Abs())
		}
	}
	return worst
}

// limits guesses as one client that pretends to be many.
func limits(t *testing.T, w *world.World, s *suite, over string) {
	t.Helper()
	w.ForgetAttempts(t)
	pretend := func(i int) map[string]string {
		ip := fmt.Sprintf("198.51.100.%d", i)
		return map[string]string{"x-forwarded-for": ip, "x-real-ip": ip, "forwarded": "for=" + ip}
	}
	for i := range 5 {
		got := authCall(t, w, over, "Login", map[string]any{"email": w.Vars["spare_email"], "password": "wrong"}, pretend(i))
		s.check(t, got.Reason == "INVALID_CREDENTIALS", "S-102 guess %d over %s: %s", i, over, got.Reason)
	}
	got := authCall(t, w, over, "Login", map[string]any{"email": w.Vars["spare_email"], "password": "wrong"}, pretend(6))
	s.check(t, got.Reason == "RATE_LIMITED", "S-102 a sixth guess over %s: %s", over, got.Reason)
	for i := range 14 {
		authCall(t, w, over, "Login", map[string]any{"email": fmt.Sprintf("spray-%d@golden.example", i), "password": "wrong"}, pretend(i))
	}
	got = authCall(t, w, over, "Login", map[string]any{"email": "spray-last@golden.example", "password": "wrong"}, pretend(99))
	s.check(t, got.Reason == "RATE_LIMITED", "S-102 guess 21 from one IP over %s: %s", over, got.Reason)
	w.ForgetAttempts(t)
}

// revoked is somebody who loses what an RPC needs.
type revoked struct {
	rpc, what, sql string
	within         time.Duration
	call           func() wire.Answer
	user           string
}

// revocation is S-63: what is taken away is gone within five seconds, and streams within
// twenty, in every service, and does not come back.
func revocation(t *testing.T, w *world.World) {
	t.Helper()
	s := report.suite("revocation")
	people := append(revokedPeople(t, w), revokedStreams(t, w)...)
	for range 2 { // a stream that is refused ends a little after it was begun
		for _, p := range people {
			require.Empty(t, p.call().Reason, "%s: %s", p.what, p.rpc)
		}
	}
	// Straight in the database, as another replica would have written it.
	w.SQL(t, "turumba_account", func(ctx context.Context, conn *pgx.Conn) {
		for _, p := range people {
			_, err := conn.Exec(ctx, p.sql, p.user)
			require.NoError(t, err)
		}
	})
	begin := w.Instance.Now()
	var slowest time.Duration
	for _, p := range people {
		require.Eventually(t, func() bool { return p.call().Reason != "" }, time.Minute, 20*time.Millisecond, "%s: %s", p.what, p.rpc)
		took := w.Instance.Now().Sub(begin)
		slowest = max(slowest, took)
		s.check(t, took < p.within, "S-63 %s: %s still answered after %s", p.what, p.rpc, took)
	}
	for _, p := range people {
		for range 20 {
			s.check(t, p.call().Reason != "", "S-63 %s: %s answered again", p.what, p.rpc)
		}
	}
	s.coverage = fmt.Sprintf("S-63, both services; slowest %s", slowest.Round(time.Millisecond))
}

// takenAway are the ways to lose a right, as SQL with the user's id.
var takenAway = map[string]string{
	"a role lost its permissions": "UPDATE roles SET permissions = '{}' WHERE id IN (SELECT role_id FROM account_users WHERE user_id = $1)",
	"the membership ended":        "DELETE FROM account_users WHERE user_id = $1",
	"the user was disabled":       "UPDATE users SET is_active = false WHERE id = $1",
}

// revokedStreams are people with an upload that is open: it ends, whatever they send.
func revokedStreams(t *testing.T, w *world.World) (people []revoked) {
	t.Helper()
	for _, rpc := range []string{"turumba.account.v1.ContactImportService/ImportContacts", "turumba.messaging.v1.MessageService/SendMessages"} {
		md, err := wire.FindMethod(rpc)
		require.NoError(t, err)
		for what, sql := range takenAway {
			name := fmt.Sprintf("revoked_%s_%d", strings.ToLower(string(md.Name())), len(people))
			user := w.Person(t, name, world.Hold{AccountID: w.Vars["account_id"], Permissions: []string{"contacts.import", "messages.send"}})
			open := sync.OnceValue(func() *atomic.Pointer[wire.Answer] {
				var got atomic.Pointer[wire.Answer]
				got.Store(&wire.Answer{})
				ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+w.Token(name))
				stream, err := w.Conns[string(md.ParentFile().Package())].NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, "/"+rpc)
				require.NoError(t, err)
				go func() {
					err := stream.RecvMsg(dynamicpb.NewMessage(md.Output()))
					got.Store(&wire.Answer{Reason: apierr.Name(apierr.From(err).Reason)})
				}()
				return &got
			})
			people = append(people, revoked{rpc: rpc, what: what, sql: sql, user: user, within: 20 * time.Second, call: func() wire.Answer { return *open().Load() }})
		}
	}
	return people
}

func revokedPeople(t *testing.T, w *world.World) (people []revoked) {
	t.Helper()
	for _, rpc := range []string{"turumba.account.v1.ContactService/ListContacts", "turumba.messaging.v1.ChannelService/ListChannels"} {
		md, err := wire.FindMethod(rpc)
		require.NoError(t, err)
		for what, sql := range takenAway {
			name := fmt.Sprintf("revoked_%d", len(people))
			user := w.Person(t, name, world.Hold{AccountID: w.Vars["account_id"], Permissions: []string{"channels.read", "contacts.read"}})
			people = append(people, revoked{rpc: rpc, what: what, sql: sql, user: user, within: 5 * time.Second, call: func() wire.Answer {
				got, err := w.Do(t.Context(), wire.GRPC, wire.Call{Method: md, Token: w.Token(name)})
				require.NoError(t, err)
				return got
			}})
		}
	}
	return people
}
