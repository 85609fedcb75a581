package local

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/alexedwards/argon2id"
	"github.com/stretchr/testify/require"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/auth"
	"github.com/turumba/turumba/services/account/identity"
)

// given is what a login or a refresh gave, and when.
type given struct {
	identity.Tokens
	password   string
	began, end int
}

// ended is something that ends sessions: all but keep, or only the session one.
type ended struct {
	what       string
	keep, one  string
	password   string // the new one, if there is one
	began, end int
}

// TestNothingOutlivesItsEpoch lets random things happen at the same time and then holds
// everything that was given to what ended it. The time between the check of a password
// and what follows is of random length.
func TestNothingOutlivesItsEpoch(t *testing.T) {
	t.Parallel()
	rounds := 120
	if n, err := strconv.Atoi(os.Getenv("SESSION_ROUNDS")); err == nil {
		rounds = n
	}
	g := newGround(t)
	g.exec(t, `CREATE FUNCTION dither() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(random() * 0.004); RETURN NEW; END $$`)
	g.exec(t, "CREATE TRIGGER dither BEFORE UPDATE ON attempt_limits FOR EACH ROW WHEN (NEW.attempts < OLD.attempts) EXECUTE FUNCTION dither()")
	g.exec(t, "CREATE TRIGGER dither BEFORE INSERT ON refresh_tokens FOR EACH ROW EXECUTE FUNCTION dither()")
	seed := rand.Uint64()
	if n, err := strconv.ParseUint(os.Getenv("SESSION_SEED"), 10, 64); err == nil {
		seed = n
	}
	next := make(chan int)
	var wg sync.WaitGroup
	var mu sync.Mutex
	seen := map[string]int{}
	for range 6 {
		wg.Go(func() {
			for n := range next {
				r := &round{t: t, p: g.somebody(t, fmt.Sprintf("p%d@example.org", n), first), rng: rand.New(rand.NewPCG(seed, uint64(n)))}
				r.play()
				r.judge()
				mu.Lock()
				for what, times := range r.seen {
					seen[what] += times
				}
				mu.Unlock()
			}
		})
	}
	for n := range rounds {
		if t.Failed() {
			break
		}
		next <- n
	}
	close(next)
	wg.Wait()
	for _, what := range []string{"given before and works", "given before and ended", "refused"} {
		require.Positive(t, seen[what], "it never happened: %s (seed %d)", what, seed)
	}
	t.Logf("%d interleavings, seed %d: %v", rounds, seed, seen)
}

// round is one user to whom several things happen at once.
type round struct {
	t    *testing.T
	p    *somebody
	rng  *rand.Rand
	seen map[string]int

	mu    sync.Mutex
	tick  int
	given []given
	ended []ended
}

func (r *round) now() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tick++
	return r.tick
}

// note keeps what something gave or ended; refusals are told by their reasons alone.
func (r *round) note(err error, add func(end int)) {
	end := r.now()
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil {
		add(end)
		return
	}
	r.seen["refused"]++
	var e *apierr.Error
	if !errors.As(err, &e) || e.Reason == errorv1.Reason_REASON_INTERNAL {
		r.t.Errorf("not a refusal: %v", err)
	}
}

func (r *round) login(password string) {
	began := r.now()
	tokens, err := r.p.g.Login(r.t.Context(), r.p.email, password)
	if err == nil && tokens.Session != "" {
		tokens, err = r.p.g.Answer(r.t.Context(), tokens.Session, r.recovery())
	}
	r.note(err, func(end int) { r.given = append(r.given, given{tokens, password, began, end}) })
}

// recovery makes a recovery code that is good once.
func (r *round) recovery() string {
	code := strings.ToLower(identity.NewToken())[:10]
	_, err := r.p.g.admin.Exec(r.t.Context(), "INSERT INTO recovery_codes (user_id, code_hash) SELECT user_id, $2 FROM user_totp WHERE user_id = $1",
		r.p.id, identity.HashCode(r.p.id, normalCode(code)))
	require.NoError(r.t, err)
	return code
}

func (r *round) end(e ended, do func() error) {
	e.began = r.now()
	err := do()
	r.note(err, func(end int) {
		e.end = end
		r.ended = append(r.ended, e)
	})
}

// play gives two sessions, and then lets three to six things happen at once.
func (r *round) play() {
	r.seen = map[string]int{}
	ctx, g, p := identity.Mailing(r.t.Context(), identity.PurposeNotice), r.p.g, r.p
	if r.rng.IntN(3) == 0 { // a hash that logging in renews
		stale := *hashParams
		stale.Iterations = 2
		hash, err := argon2id.CreateHash(first, &stale)
		require.NoError(r.t, err)
		g.exec(r.t, "UPDATE users SET password_hash = $2 WHERE id = $1", p.id, hash)
	}
	r.login(first)
	r.login(first)
	here, there := r.given[0], r.given[1]
	reset := p.forgot(r.t)
	var wg sync.WaitGroup
	for i := range 3 + r.rng.IntN(4) {
		password := fmt.Sprintf("seven quiet mountain goats %d", i)
		session := sessionOf(r.t, here.Access)
		switch r.rng.IntN(9) {
		case 0, 1:
			wg.Go(func() { r.login(first) })
		case 2:
			wg.Go(func() { r.refresh(there) })
		case 3:
			wg.Go(func() {
				r.end(ended{what: "logout", one: sessionOf(r.t, there.Access)}, func() error { return g.Logout(ctx, there.Refresh) })
			})
		case 4:
			wg.Go(func() {
				r.end(ended{what: "change", keep: session, password: password}, func() error { return g.Change(p.in(r.t, here.Access), p.id, session, first, password) })
			})
		case 5:
			wg.Go(func() {
				r.end(ended{what: "reset", password: password}, func() error { return g.Reset(ctx, p.email, reset, password) })
			})
		case 6:
			wg.Go(func() {
				r.end(ended{what: "disable"}, func() error {
					_, err := g.Store.SetActive(ctx, p.id, false)
					require.NoError(r.t, err)
					_, err = g.Store.SetActive(ctx, p.id, true)
					return err
				})
			})
		case 7:
			wg.Go(func() { r.end(ended{what: "logout everywhere"}, func() error { return g.LogoutEverywhere(ctx, p.id) }) })
		case 8:
			wg.Go(func() {
				r.end(ended{what: "second factor", keep: session}, func() error {
					secret, _, err := g.SetupTotp(p.in(r.t, here.Access), p.id, first)
					if err == nil {
						_, err = g.VerifyTotp(p.in(r.t, here.Access), p.id, p.code(r.t, secret))
					}
					return err
				})
			})
		}
	}
	wg.Wait()
}

func (r *round) refresh(from given) {
	tokens, err := r.p.g.Refresh(r.t.Context(), from.Refresh)
	// What a refresh gives stands on the login that it came from.
	r.note(err, func(end int) { r.given = append(r.given, given{tokens, from.password, from.began, end}) })
}

// judge holds what was given to what ended it.
func (r *round) judge() {
	t, p := r.t, r.p
	l, err := p.g.Store.LoginByID(t.Context(), p.id)
	require.NoError(t, err)
	passwords := 0
	for _, e := range r.ended {
		if e.password != "" && p.hashIsOf(t, e.password) {
			passwords++
		}
	}
	changed := r.changed()
	if changed != (passwords == 1) || p.hashIsOf(t, first) == changed {
		t.Errorf("an old password came back: %+v", r.ended)
	}
	for _, x := range r.given {
		c, _ := claimsOf(t, x.Access)
		works := p.works(t, x.Access)
		why := r.why(x, c, changed)
		switch {
		case works && why != "":
			t.Errorf("an access token works although %s: %+v, ended %+v", why, x, r.ended)
		case c.Epoch < l.Epoch && works && !r.kept(c.SessionID):
			t.Errorf("an access token of epoch %d works on epoch %d", c.Epoch, l.Epoch)
		case works:
			r.seen["given before and works"]++
		default:
			r.seen["given before and ended"]++
		}
	}
	// The newest refresh token of each session.
	newest := map[string]given{}
	for _, x := range r.given {
		newest[sessionOf(t, x.Access)] = x
	}
	for _, x := range newest {
		c, _ := claimsOf(t, x.Access)
		works := p.works(t, x.Access)
		tokens, err := p.g.Refresh(t.Context(), x.Refresh)
		if err == nil && (r.why(x, c, changed) != "" || !works || !p.works(t, tokens.Access)) {
			t.Errorf("a refresh token works although %q: %+v, ended %+v", r.why(x, c, changed), x, r.ended)
		}
	}
}

// why tells what should have ended something that was given; empty for nothing.
func (r *round) why(x given, c auth.Claims, changed bool) string {
	for _, e := range r.ended {
		switch {
		case e.one != "":
			if e.one == c.SessionID {
				return e.what
			}
		case e.keep == c.SessionID:
		case x.end < e.began:
			return e.what
		case e.password != "" && changed && x.password != e.password:
			return e.what + " of the password"
		}
	}
	return ""
}

// changed reports whether the password is another one than at first.
func (r *round) changed() bool {
	for _, e := range r.ended {
		if e.password != "" {
			return true
		}
	}
	return false
}

// kept reports whether something that ended all sessions kept this one.
func (r *round) kept(session string) bool {
	for _, e := range r.ended {
		if e.keep == session {
			return true
		}
	}
	return false
}
