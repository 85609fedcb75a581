package local

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alexedwards/argon2id"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/pquerna/otp/totp"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/auth"
	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/pg/pgtest"
	"github.com/turumba/turumba/kit/telemetry"
	"github.com/turumba/turumba/kit/vault"
	account "github.com/turumba/turumba/services/account"
	"github.com/turumba/turumba/services/account/identity"
	"github.com/turumba/turumba/services/account/postgres"
)

const issuer = "http://test"

// TestMain makes hashes cheap: the tests are about who comes first.
func TestMain(m *testing.M) {
	hashParams = &argon2id.Params{Memory: 64, Iterations: 1, Parallelism: 1, SaltLength: 16, KeyLength: 32}
	goleak.VerifyTestMain(m, pgtest.Goleak()...)
}

// ground is the provider on a database of its own.
type ground struct {
	*Provider
	admin *pgxpool.Pool
	clock *clock.Fake
}

func newGround(t *testing.T) *ground {
	t.Helper()
	now := clock.NewFake(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC))
	d := pgtest.New(t, postgres.Migrations()...)
	store, err := postgres.New(d.OpenAt(t, pg.RoleAPI, now), make([]byte, 32), issuer, account.Quotas{})
	require.NoError(t, err)
	v, err := vault.New(bytes.Repeat([]byte{7}, 32))
	require.NoError(t, err)
	keys, err := identity.LoadKeys(t.Context(), identity.KeysConfig{Store: store, Vault: v, Clock: now, Issuer: issuer, ClientID: "test", Operators: []string{"operator@example.org"}})
	require.NoError(t, err)
	p, err := New(Config{
		Store: store, Vault: v, Keys: keys, Mail: identity.NewPostbox(store, v, nil, now, telemetry.Discard(), nil), Clock: now, Logger: telemetry.Discard(), Changed: func() {},
	})
	require.NoError(t, err)
	admin, err := pgxpool.New(t.Context(), d.URL)
	require.NoError(t, err)
	t.Cleanup(admin.Close)
	return &ground{Provider: p, admin: admin, clock: now}
}

func (g *ground) exec(t *testing.T, sql string, args ...any) {
	t.Helper()
	_, err := g.admin.Exec(t.Context(), sql, args...)
	require.NoError(t, err)
}

// pause makes what waits at the place wait until the test lets it go on. Attempts are
// given back between the check of a password and what follows from it; a refresh token is
// stored between the look at its session and the commit.
func (g *ground) pause(t *testing.T, place string) (resume func()) {
	t.Helper()
	when := map[string]string{
		"checked":   "BEFORE UPDATE ON attempt_limits FOR EACH ROW WHEN (NEW.attempts < OLD.attempts)",
		"refreshed": "BEFORE INSERT ON refresh_tokens FOR EACH ROW",
	}[place]
	g.exec(t, `CREATE FUNCTION pause() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_advisory_xact_lock(42); RETURN NEW; END $$`)
	g.exec(t, "CREATE TRIGGER pause "+when+" EXECUTE FUNCTION pause()")
	conn, err := g.admin.Acquire(t.Context())
	require.NoError(t, err)
	_, err = conn.Exec(t.Context(), "SELECT pg_advisory_lock(42)")
	require.NoError(t, err)
	return sync.OnceFunc(func() {
		_, err := conn.Exec(t.Context(), "SELECT pg_advisory_unlock(42)")
		require.NoError(t, err)
		conn.Release()
	})
}

// waits waits until so many statements wait for a lock.
func (g *ground) waits(t *testing.T, n int) {
	t.Helper()
	require.Eventually(t, func() bool {
		var waiting int
		require.NoError(t, g.admin.QueryRow(t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'").Scan(&waiting))
		return waiting >= n
	}, time.Minute, 5*time.Millisecond)
}

// open drops the triggers of pause.
func (g *ground) open(t *testing.T) {
	t.Helper()
	g.exec(t, "DROP FUNCTION pause CASCADE")
}

// somebody is a user with a password.
type somebody struct {
	g         *ground
	id, email string
}

func (g *ground) somebody(t *testing.T, email, password string) *somebody {
	t.Helper()
	p := &somebody{g: g, id: uuid.NewString(), email: email}
	hash, err := argon2id.CreateHash(password, hashParams)
	require.NoError(t, err)
	g.exec(t, `INSERT INTO users (id, email, idp_issuer, idp_subject, password_hash, created_at, updated_at) VALUES ($1, $2, $3, $1::uuid::text, $4, now(), now())`,
		p.id, email, issuer, hash)
	return p
}

func (p *somebody) login(t *testing.T, password string) identity.Tokens {
	t.Helper()
	tokens, err := p.g.Login(t.Context(), p.email, password)
	require.NoError(t, err)
	return tokens
}

// claims reads what a token says.
func claimsOf(t *testing.T, token string) (c auth.Claims, groups []string) {
	t.Helper()
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	require.NoError(t, err)
	var raw struct {
		Session string   `json:"origin_jti"`
		Login   int64    `json:"auth_time"`
		Expiry  int64    `json:"exp"`
		Epoch   int64    `json:"turumba:epoch"`
		Groups  []string `json:"cognito:groups"`
	}
	require.NoError(t, json.Unmarshal(payload, &raw))
	return auth.Claims{SessionID: raw.Session, AuthTime: time.Unix(raw.Login, 0), Epoch: raw.Epoch, HasEpoch: true, Expiry: time.Unix(raw.Expiry, 0)}, raw.Groups
}

// works reports whether an access token counts, as a service without a cache sees it.
func (p *somebody) works(t *testing.T, token string) bool {
	t.Helper()
	c, _ := claimsOf(t, token)
	caller, err := p.g.Store.Caller(t.Context(), issuer, p.id)
	if apierr.HasReason(err, errorv1.Reason_REASON_UNAUTHENTICATED) {
		return false
	}
	require.NoError(t, err)
	return !caller.Ended(c) && p.g.clock.Now().Before(c.Expiry)
}

// in is a context of a call in the session of a token.
func (p *somebody) in(t *testing.T, token string) context.Context {
	t.Helper()
	c, _ := claimsOf(t, token)
	return identity.Mailing(auth.WithCall(t.Context(), &auth.Call{Caller: auth.Caller{UserID: p.id, SessionID: c.SessionID}}), identity.PurposeNotice)
}

func sessionOf(t *testing.T, token string) string {
	t.Helper()
	c, _ := claimsOf(t, token)
	return c.SessionID
}

// forgot stores a code as the mail would tell it.
func (p *somebody) forgot(t *testing.T) (code string) {
	t.Helper()
	code = identity.NewToken()
	require.NoError(t, p.g.Store.DB().InTx(t.Context(), nil, func(tx *pg.Tx) error {
		h, err := p.g.Store.HoldAny(t.Context(), tx, p.id)
		require.NoError(t, err)
		return h.SaveReset(t.Context(), identity.HashCode(p.email, code), tx.Now.Add(account.CodeLife))
	}))
	return code
}

// factor turns the second factor on in a session and returns the secret.
func (p *somebody) factor(t *testing.T, token, password string) (secret string, recovery []string) {
	t.Helper()
	secret, _, err := p.g.SetupTotp(p.in(t, token), p.id, password)
	require.NoError(t, err)
	recovery, err = p.g.VerifyTotp(p.in(t, token), p.id, p.code(t, secret))
	require.NoError(t, err)
	return secret, recovery
}

func (p *somebody) code(t *testing.T, secret string) string {
	t.Helper()
	code, err := totp.GenerateCode(secret, p.g.clock.Now())
	require.NoError(t, err)
	return code
}

func (p *somebody) hashIsOf(t *testing.T, password string) bool {
	t.Helper()
	l, err := p.g.Store.LoginByID(t.Context(), p.id)
	require.NoError(t, err)
	match, err := argon2id.ComparePasswordAndHash(password, l.PasswordHash)
	require.NoError(t, err)
	return match
}

const (
	first  = "correct horse battery"
	second = "seven quiet mountain goats"
	third  = "yellow submarine lettuce"
)

// TestLoginBegunBefore: a login whose password was checked before something ended all
// sessions gives nothing, whatever that was, and does not bring an old password back.
func TestLoginBegunBefore(t *testing.T) {
	t.Parallel()
	other := *hashParams
	other.Iterations = 2
	for name, end := range map[string]func(t *testing.T, p *somebody, here identity.Tokens){
		"reset": func(t *testing.T, p *somebody, _ identity.Tokens) {
			t.Helper()
			require.NoError(t, p.g.Store.DB().InTx(t.Context(), nil, func(tx *pg.Tx) error { // Reset itself would wait with the login
				h, err := p.g.Store.HoldAny(t.Context(), tx, p.id)
				require.NoError(t, err)
				hash, err := argon2id.CreateHash(second, hashParams)
				require.NoError(t, err)
				return h.SetPassword(t.Context(), hash, "")
			}))
		},
		"disabled and enabled": func(t *testing.T, p *somebody, _ identity.Tokens) {
			t.Helper()
			for _, active := range []bool{false, true} {
				_, err := p.g.Store.SetActive(t.Context(), p.id, active)
				require.NoError(t, err)
			}
		},
		"logged out everywhere": func(t *testing.T, p *somebody, _ identity.Tokens) {
			t.Helper()
			require.NoError(t, p.g.LogoutEverywhere(t.Context(), p.id))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newGround(t)
			p := g.somebody(t, "a@example.org", first)
			here := p.login(t, first)
			stale, err := argon2id.CreateHash(first, &other)
			require.NoError(t, err)
			for _, rehashed := range []bool{false, true} {
				if rehashed {
					g.exec(t, "UPDATE users SET password_hash = $2 WHERE id = $1", p.id, stale)
				}
				resume := g.pause(t, "checked")
				var wg sync.WaitGroup
				var late identity.Tokens
				wg.Go(func() { late, err = g.Login(t.Context(), p.email, first) })
				g.waits(t, 1)
				end(t, p, here)
				resume()
				wg.Wait()
				g.open(t)
				require.ErrorIs(t, err, identity.ErrCredentials)
				require.Empty(t, late)
				require.Equal(t, name == "reset", p.hashIsOf(t, second), "the old password does not come back")
				require.False(t, p.works(t, here.Access))
				g.clock.Advance(21 * time.Minute)
				require.False(t, p.works(t, here.Access), "nothing revives with time")
				_, err = g.Refresh(t.Context(), here.Refresh)
				require.ErrorIs(t, err, identity.ErrRefresh)
			}
		})
	}
}

// TestRefreshUnderWay: a refresh that has read its session while that is ended leaves
// nothing that works.
func TestRefreshUnderWay(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(context.Context, *somebody, identity.Tokens) error{
		"logout": func(ctx context.Context, p *somebody, x identity.Tokens) error { return p.g.Logout(ctx, x.Refresh) },
		"logout everywhere": func(ctx context.Context, p *somebody, _ identity.Tokens) error {
			return p.g.LogoutEverywhere(ctx, p.id)
		},
		"disable": func(ctx context.Context, p *somebody, _ identity.Tokens) error {
			_, err := p.g.Store.SetActive(ctx, p.id, false)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newGround(t)
			p := g.somebody(t, "a@example.org", first)
			here := p.login(t, first)
			resume := g.pause(t, "refreshed")
			var next identity.Tokens
			var refreshed, ended error
			var wg sync.WaitGroup
			wg.Go(func() { next, refreshed = g.Refresh(t.Context(), here.Refresh) })
			g.waits(t, 1)
			wg.Go(func() { ended = end(t.Context(), p, here) })
			g.waits(t, 2)
			resume()
			wg.Wait()
			g.open(t)
			require.NoError(t, refreshed)
			require.NoError(t, ended)
			require.False(t, p.works(t, next.Access))
			g.clock.Advance(21 * time.Minute)
			require.False(t, p.works(t, next.Access))
			_, err := g.Refresh(t.Context(), next.Refresh)
			require.ErrorIs(t, err, identity.ErrRefresh)
		})
	}
}

// TestOldEpochs: what else was given on an epoch ends with it.
func TestOldEpochs(t *testing.T) {
	t.Parallel()
	g := newGround(t)
	p := g.somebody(t, "operator@example.org", first)
	here, there := p.login(t, first), p.login(t, first)
	code := p.forgot(t)
	require.NoError(t, g.Change(p.in(t, here.Access), p.id, sessionOf(t, here.Access), first, second))
	require.True(t, p.works(t, here.Access), "the caller's session goes on")
	require.False(t, p.works(t, there.Access))
	require.ErrorIs(t, g.Reset(t.Context(), p.email, code, third), account.ErrInvalidCode, "a code that was mailed before")
	kept, err := g.Refresh(t.Context(), here.Refresh)
	require.NoError(t, err)
	require.True(t, p.works(t, kept.Access))

	secret, recovery := p.factor(t, kept.Access, second)
	require.True(t, p.works(t, kept.Access))
	kept, err = g.Refresh(t.Context(), kept.Refresh)
	require.NoError(t, err)
	_, groups := claimsOf(t, kept.Access)
	require.Empty(t, groups, "an operator whose login took no second factor")
	waiting := p.login(t, second)
	require.NotEmpty(t, waiting.Session)
	g.clock.Advance(totpStep * time.Second)
	in, err := g.Answer(t.Context(), p.login(t, second).Session, p.code(t, secret))
	require.NoError(t, err)
	_, groups = claimsOf(t, in.Access)
	require.Equal(t, []string{"operators"}, groups)
	again, err := g.Refresh(t.Context(), in.Refresh)
	require.NoError(t, err)
	_, groups = claimsOf(t, again.Access)
	require.Equal(t, []string{"operators"}, groups)

	require.NoError(t, g.DisableTotp(p.in(t, again.Access), p.id, recovery[0]))
	require.True(t, p.works(t, again.Access))
	require.False(t, p.works(t, kept.Access), "a session that was kept before")
	_, err = g.Answer(t.Context(), waiting.Session, recovery[1])
	require.ErrorIs(t, err, identity.ErrSession, "a login that waited for the second factor")
	last, err := g.Refresh(t.Context(), again.Refresh)
	require.NoError(t, err)
	_, groups = claimsOf(t, last.Access)
	require.Empty(t, groups, "no second factor, no operator")

	gone := p.login(t, second)
	require.NoError(t, g.Logout(t.Context(), gone.Refresh))
	err = g.Change(p.in(t, gone.Access), p.id, sessionOf(t, gone.Access), second, third)
	require.True(t, apierr.HasReason(err, errorv1.Reason_REASON_UNAUTHENTICATED), "%v: a session that has ended changes nothing", err)
	require.True(t, p.works(t, last.Access))
}
