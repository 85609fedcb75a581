package security_test

import (
	"bytes"
	"fmt"
	"regexp"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/e2e/wire"
	"github.com/turumba/turumba/e2e/world"
)

// strangers tries to get into the account of somebody who registers (ADR 0043).
type strangers struct {
	t     *testing.T
	w     *world.World
	s     *suite
	over  string
	email string
	mails int
}

// registrations is S-106: nobody but who began a registration finishes it, whoever else
// registers the address, before or after.
func registrations(t *testing.T, w *world.World) {
	t.Helper()
	s := report.suite("registrations")
	for _, over := range wire.All() {
		for name, attack := range map[string]func(*strangers){
			"before": (*strangers).before, "after": (*strangers).after, "known": (*strangers).known, "guesses": (*strangers).guesses, "flood": (*strangers).flood,
		} {
			w.ForgetAttempts(t)
			attack(&strangers{t: t, w: w, s: s, over: over, email: fmt.Sprintf("victim-%s-%s@golden.example", name, over)})
		}
	}
	w.ForgetAttempts(t)
	s.coverage = "S-106: a registration is finished where it began, and by nobody else"
}

const (
	victims = "seven quiet mountain goats"
	theirs  = "yellow submarine lettuce"
)

// register begins a registration and returns its token and the code that was mailed;
// empty where none was.
func (x *strangers) register(password string) (token, code string) {
	x.t.Helper()
	got := authCall(x.t, x.w, x.over, "Register", map[string]any{"email": x.email, "password": password, "full_name": "Some Body", "account_name": "Org"}, nil)
	require.Empty(x.t, got.Reason, got.Detail)
	fields, _ := got.Body.(map[string]any)
	token, _ = fields["registration_token"].(string)
	x.s.check(x.t, len(token) == 43, "S-106 over %s: the token %q is not of 256 bits", x.over, token)
	return token, x.code()
}

var code = regexp.MustCompile(`Your verification code is ([0-9]{6})`)

// code waits for the next mail to the address.
func (x *strangers) code() string {
	x.t.Helper()
	x.mails++
	text := ""
	require.Eventually(x.t, func() bool {
		mails, err := x.w.Instance.Simulator.Messages(x.t.Context(), x.email, x.mails+1)
		require.NoError(x.t, err)
		if len(mails) == x.mails {
			text = mails[0].Text // the newest
		}
		return text != ""
	}, time.Minute, 20*time.Millisecond)
	if m := code.FindStringSubmatch(text); m != nil {
		x.s.check(x.t, bytes.Contains([]byte(text), []byte("“Some Body”")) && bytes.Contains([]byte(text), []byte("only if you started this registration")),
			"S-106 over %s: the mail does not say whose code it is: %s", x.over, text)
		return m[1]
	}
	return ""
}

func (x *strangers) verify(token, code, want, what string) {
	x.t.Helper()
	got := authCall(x.t, x.w, x.over, "VerifyEmail", map[string]any{"email": x.email, "code": code, "registration_token": token}, nil)
	x.s.check(x.t, got.Reason == want, "S-106 over %s, %s: %q, expected %q", x.over, what, got.Reason, want)
}

// owns checks that the victim got in, and the stranger did not.
func (x *strangers) owns() {
	x.t.Helper()
	for password, want := range map[string]string{victims: "", theirs: "INVALID_CREDENTIALS"} {
		got := authCall(x.t, x.w, x.over, "Login", map[string]any{"email": x.email, "password": password}, nil)
		x.s.check(x.t, got.Reason == want, "S-106 over %s: login with %q: %q", x.over, password, got.Reason)
	}
}

// before: a stranger registered the address first.
func (x *strangers) before() {
	strange, strangeCode := x.register(theirs)
	token, code := x.register(victims)
	x.verify(token, strangeCode, "INVALID_CODE", "the code of the stranger's registration")
	x.verify(strange, code, "INVALID_CODE", "the victim's code with the stranger's token")
	x.verify("", code, "VALIDATION_FAILED", "no token")
	x.verify(token, code, "", "the victim's own")
	x.verify(strange, strangeCode, "INVALID_CODE", "the stranger's registration after it")
	x.owns()
}

// after: a stranger registers the address while the victim's registration waits.
func (x *strangers) after() {
	token, code := x.register(victims)
	strange, strangeCode := x.register(theirs)
	authCall(x.t, x.w, x.over, "ResendVerification", map[string]any{"email": x.email, "registration_token": strange}, nil)
	newer := x.code()
	for _, c := range []string{strangeCode, newer} {
		x.verify(token, c, "INVALID_CODE", "the victim's token with a code of the stranger's registration")
	}
	x.verify(token, code, "", "the victim's own, which the later one did not touch")
	x.verify(token, code, "", "once more")
	x.verify(strange, newer, "INVALID_CODE", "the stranger's registration after it")
	x.owns()
}

// known: a registration of an address with a user gives nothing.
func (x *strangers) known() {
	token, code := x.register(victims)
	x.verify(token, code, "", "the victim's own")
	strange, none := x.register(theirs)
	x.s.check(x.t, none == "", "S-106 over %s: a code was mailed to a known address", x.over)
	x.verify(strange, "000000", "INVALID_CODE", "a registration of a known address")
	x.owns()
}

// guesses: wrong codes of a stranger's registration end that one alone.
func (x *strangers) guesses() {
	token, code := x.register(victims)
	strange, strangeCode := x.register(theirs)
	wrong := "000000"
	if strangeCode == wrong {
		wrong = "000001"
	}
	for range 5 {
		x.verify(strange, wrong, "INVALID_CODE", "a guess")
	}
	x.verify(strange, strangeCode, "INVALID_CODE", "the code after five guesses")
	x.verify(token, code, "", "the victim's own")
	x.owns()
}

// flood: so many registrations of an address may wait and no more, known or not, and the
// ones that wait go on.
func (x *strangers) flood() {
	token, code := x.register(victims)
	answers := map[string]int{}
	for range 12 {
		x.w.ForgetAttempts(x.t)
		got := authCall(x.t, x.w, x.over, "Register", map[string]any{"email": x.email, "password": theirs, "full_name": "Some Body", "account_name": "Org"}, nil)
		answers[got.Reason]++
	}
	x.s.check(x.t, answers[""] == 9 && answers["RATE_LIMITED"] == 3, "S-106 over %s: %v", x.over, answers)
	x.verify(token, code, "", "the victim's own")
	x.owns()
}
