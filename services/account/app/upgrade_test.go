package app_test

import (
	"context"
	"crypto/sha256"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/alexedwards/argon2id"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	accountv1 "github.com/turumba/turumba/gen/turumba/account/v1"
	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/config"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/pg/pgtest"
	account "github.com/turumba/turumba/services/account"
	"github.com/turumba/turumba/services/account/app"
	"github.com/turumba/turumba/services/account/postgres"
)

// before are the migrations of the service up to one of them.
func before(t *testing.T, first string) []pg.MigrationSet {
	t.Helper()
	sets := postgres.Migrations()
	for i := range sets {
		if sets[i].Name != "account" {
			continue
		}
		old := fstest.MapFS{}
		names, err := fs.Glob(sets[i].FS, "*.sql")
		require.NoError(t, err)
		for _, name := range names {
			if name < first {
				data, err := fs.ReadFile(sets[i].FS, name)
				require.NoError(t, err)
				old[name] = &fstest.MapFile{Data: data}
			}
		}
		sets[i].FS = old
	}
	return sets
}

// TestUpgradeOfSessions: a database of before sessions had rows is carried over. Who was
// logged in stays so, what had ended stays ended, also where a refresh had slipped
// through, and who waited for a code registers again.
func TestUpgradeOfSessions(t *testing.T) {
	t.Parallel()
	old := pgtest.New(t, before(t, "00012")...)
	now := time.Date(2026, 3, 1, 11, 0, 0, 0, time.UTC)
	user, accountID, role := uuid.NewString(), uuid.NewString(), uuid.NewString()
	hash, err := argon2id.CreateHash(password, &argon2id.Params{Memory: 64, Iterations: 1, Parallelism: 1, SaltLength: 16, KeyLength: 32})
	require.NoError(t, err)
	sum := func(s string) []byte {
		b := sha256.Sum256([]byte(s))
		return b[:]
	}
	live, leaked, done := uuid.NewString(), uuid.NewString(), uuid.NewString()
	conn, err := pgx.Connect(t.Context(), old.URL)
	require.NoError(t, err)
	for _, q := range []struct {
		sql  string
		args []any
	}{
		{"INSERT INTO users (id, email, idp_issuer, idp_subject, password_hash, created_at, updated_at) VALUES ($1, $2, 'http://test', $1::uuid::text, $3, $4, $4)", []any{user, email, hash, now}},
		{"INSERT INTO accounts (id, name, created_at, updated_at) VALUES ($1, 'School', $2, $2)", []any{accountID, now}},
		{"INSERT INTO roles (id, account_id, name, permissions, created_at, updated_at) VALUES ($1, $2, 'Owner', '{accounts.read,contacts.read}', $3, $3)", []any{role, accountID, now}},
		{"INSERT INTO account_users (id, account_id, user_id, role_id, created_at) VALUES (gen_random_uuid(), $1, $2, $3, $4)", []any{accountID, user, role, now}},
		{"INSERT INTO ended_sessions (user_id, session_id, ended_at) VALUES ($1, 'of the pool', $2)", []any{user, now}},
		{"INSERT INTO password_resets (user_id, code_hash, expires_at) VALUES ($1, $2, $3)", []any{user, sum(email + "\x00the-code"), now.Add(2 * time.Hour)}},
		{
			`INSERT INTO pending_registrations (email, password_hash, full_name, account_name, code_hash, code_expires, created_at) VALUES ('b@example.org', 'x', 'B', 'B', $1, $2, $3)`,
			[]any{sum("b@example.org\x00123456"), now.Add(2 * time.Hour), now},
		},
	} {
		_, err = conn.Exec(t.Context(), q.sql, q.args...)
		require.NoError(t, err, q.sql)
	}
	token := func(name, family string, used, revoked *time.Time) {
		_, err := conn.Exec(t.Context(), `INSERT INTO refresh_tokens (token_hash, family_id, user_id, expires_at, used_at, revoked_at, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7)`,
			sum(name), family, user, now.Add(30*24*time.Hour), used, revoked, now)
		require.NoError(t, err)
	}
	token("live, used", live, &now, nil)
	token("live", live, nil, nil)
	token("leaked, ended", leaked, &now, &now)
	token("leaked", leaked, nil, nil) // the ending did not see it
	token("done", done, nil, &now)
	require.NoError(t, conn.Close(t.Context()))

	w := start(t, func(cfg *app.Config, _ *app.Deps) { cfg.DatabaseURL = config.Secret(old.URL) })
	refresh := func(name string) (*accountv1.RefreshResponse, error) {
		return w.auth.Refresh(t.Context(), &accountv1.RefreshRequest{RefreshToken: name})
	}
	r, err := refresh("live")
	require.NoError(t, err)
	c, err := accountv1.NewContextServiceClient(w.conn).GetContext(with(t.Context(), r.GetAccessToken()), &accountv1.GetContextRequest{})
	require.NoError(t, err)
	require.Equal(t, []string{accountID}, c.GetAccountIds())
	for _, name := range []string{"leaked", "done", "live, used"} {
		_, err = refresh(name)
		reason(t, errorv1.Reason_REASON_INVALID_REFRESH_TOKEN, err)
	}
	resolved, err := accountv1.NewInternalContextServiceClient(w.worker).ResolveContext(t.Context(), &accountv1.ResolveContextRequest{Issuer: "http://test", Subject: user})
	require.NoError(t, err)
	require.Contains(t, resolved.GetEndedSessions(), "of the pool")

	_, err = w.auth.VerifyEmail(t.Context(), &accountv1.VerifyEmailRequest{Email: "b@example.org", Code: "123456", RegistrationToken: "none"})
	reason(t, errorv1.Reason_REASON_INVALID_CODE, err)
	w.signUp(t, "b@example.org")

	_, err = w.auth.ResetPassword(t.Context(), &accountv1.ResetPasswordRequest{Email: email, Code: "the-code", NewPassword: newPassword})
	require.NoError(t, err, "a code that was mailed before")
	_, err = w.auth.Login(t.Context(), &accountv1.LoginRequest{Email: email, Password: newPassword})
	require.NoError(t, err)
}

// TestUpgradeOfContactKeys: contacts of before one normaliser read their addresses are brought
// over, those of one person flagged, and an upgrade that was killed goes on.
func TestUpgradeOfContactKeys(t *testing.T) {
	t.Parallel()
	old := pgtest.New(t, before(t, "00019")...)
	accountID := uuid.NewString()
	at := time.Date(2026, 3, 1, 11, 0, 0, 0, time.UTC)
	conn, err := pgx.Connect(t.Context(), old.URL)
	require.NoError(t, err)
	ids := map[string]string{}
	for i, doc := range []string{
		`{"display": "Plain", "email": "plain@x.example", "identifiers": {"telegram": "1"}}`,
		`{"display": "Blank", "identifiers": {"telegram": " 1 "}}`,
		`{"display": "Digits", "identifiers": {"whatsapp": "\u0661\u0662"}}`,
	} {
		id := account.NewID()
		ids[strings.Split(doc, `"`)[3]] = id
		_, err = conn.Exec(t.Context(), "INSERT INTO contact_documents (id, account_id, doc, created_at, updated_at) VALUES ($1, $2, $3, $4, $4)", id, accountID, doc, at.Add(time.Duration(i)*time.Second))
		require.NoError(t, err)
	}
	require.NoError(t, pg.Migrate(t.Context(), old.URL, postgres.Migrations()...))
	var left int
	require.NoError(t, conn.QueryRow(t.Context(), "SELECT count(*) FROM contact_rekeys").Scan(&left))
	require.Equal(t, 2, left, "what is in today's form is not looked at")
	require.NoError(t, conn.Close(t.Context()))

	db, err := pg.Open(t.Context(), pg.Config{URL: old.URL, Role: pg.RoleAPI, Name: "rekey"})
	require.NoError(t, err)
	t.Cleanup(db.Close)
	store, err := postgres.New(db, make([]byte, 32), "http://test", account.Quotas{})
	require.NoError(t, err)
	duplicates, more, err := store.Rekey(t.Context())
	require.NoError(t, err)
	require.False(t, more)
	require.Equal(t, []string{ids["Blank"]}, duplicates)
	duplicates, more, err = store.Rekey(t.Context())
	require.NoError(t, err)
	require.False(t, more)
	require.Empty(t, duplicates, "nothing is done twice")
	for name, want := range map[string]string{"Plain": "", "Blank": ids["Plain"], "Digits": ""} {
		c, err := store.Contact(t.Context(), []string{accountID}, ids[name])
		require.NoError(t, err)
		require.Equal(t, want, c.DuplicateOfID, name)
		if name == "Digits" {
			require.Equal(t, "12", c.Identifiers["whatsapp"])
		}
	}
}

// TestRegistrationIsBoundToItsToken is the deterministic part of the attacks on
// registrations, with what the outside cannot see.
func TestRegistrationIsBoundToItsToken(t *testing.T) {
	t.Parallel()
	w := start(t)
	register := func(ctx context.Context, name string) *accountv1.RegisterResponse {
		r, err := w.auth.Register(ctx, &accountv1.RegisterRequest{Email: email, Password: password, FullName: name, AccountName: "A"})
		require.NoError(t, err)
		return r
	}
	verify := func(r *accountv1.RegisterResponse, code string) error {
		_, err := w.auth.VerifyEmail(t.Context(), &accountv1.VerifyEmailRequest{Email: email, Code: code, RegistrationToken: r.GetRegistrationToken()})
		return err
	}
	ctx := with(t.Context(), "none", "idempotency-key", "once")
	one := register(ctx, "Ada\u202e Lovelace\r\n")
	mail := w.mail.next(t, email)
	require.Contains(t, mail, "in the name of “Ada Lovelace”")
	again := register(ctx, "Ada\u202e Lovelace\r\n")
	require.Equal(t, one.GetRegistrationToken(), again.GetRegistrationToken(), "who repeats the call knows its key, and goes on where it broke off")
	require.Equal(t, one.GetNext(), again.GetNext())
	two := register(t.Context(), "unlock at https://evil.example/x")
	require.NotContains(t, w.mail.next(t, email), "evil")
	code := sixDigitsOf(mail)
	reason(t, errorv1.Reason_REASON_INVALID_CODE, verify(two, code))
	require.NoError(t, verify(one, code))
	reason(t, errorv1.Reason_REASON_INVALID_CODE, verify(two, code))
	conn, err := pgx.Connect(t.Context(), w.db.URL)
	require.NoError(t, err)
	var rows, inClear int
	require.NoError(t, conn.QueryRow(t.Context(), `SELECT count(*), count(*) FILTER (WHERE p::text LIKE '%' || $1 || '%') FROM pending_registrations p`, one.GetRegistrationToken()).Scan(&rows, &inClear))
	require.Equal(t, 1, rows, "the others ended")
	require.Zero(t, inClear)
	require.NoError(t, conn.Close(t.Context()))

	known := register(t.Context(), "Mallory")
	require.Len(t, known.GetRegistrationToken(), len(one.GetRegistrationToken()))
	w.clock.Advance(account.RegistrationLife + time.Minute)
	require.Eventually(t, func() bool {
		w.clock.Advance(time.Hour)
		conn, err := pgx.Connect(t.Context(), w.db.URL)
		require.NoError(t, err)
		require.NoError(t, conn.QueryRow(t.Context(), "SELECT count(*) FROM pending_registrations").Scan(&rows))
		require.NoError(t, conn.Close(t.Context()))
		return rows == 0
	}, time.Minute, 20*time.Millisecond, "registrations are kept a day")
}

func sixDigitsOf(mail string) string {
	_, after, _ := strings.Cut(mail, "Your verification code is ")
	return after[:6]
}

// TestOperatorsHaveASecondFactor: an address in the setting is not enough, nor is a
// second factor that the login did not take.
func TestOperatorsHaveASecondFactor(t *testing.T) {
	t.Parallel()
	w := start(t, func(cfg *app.Config, _ *app.Deps) { cfg.Operators = []string{email} })
	_, _, victim := w.signUp(t, "victim@example.org")
	suspend := func(ctx context.Context) error {
		_, err := accountv1.NewOperatorServiceClient(w.conn).SuspendAccount(ctx, &accountv1.SuspendAccountRequest{AccountId: victim, Reason: "x"})
		return err
	}
	first, _, _ := w.signUp(t, email)
	reason(t, errorv1.Reason_REASON_PERMISSION_DENIED, suspend(first))
	secret, recovery := w.secondFactor(t, first)
	reason(t, errorv1.Reason_REASON_PERMISSION_DENIED, suspend(first))
	w.clock.Advance(30 * time.Second)
	in, err := w.auth.AnswerChallenge(t.Context(), &accountv1.AnswerChallengeRequest{Session: w.mustLogin(t, password).GetSession(), Code: w.code(t, secret)})
	require.NoError(t, err)
	operator := with(t.Context(), in.GetAccessToken())
	require.NoError(t, suspend(operator))
	_, err = w.auth.DisableTotp(operator, &accountv1.DisableTotpRequest{Code: recovery[0]})
	require.NoError(t, err)
	reason(t, errorv1.Reason_REASON_PERMISSION_DENIED, suspend(operator)) // at once, by the very token
	_, err = accountv1.NewContextServiceClient(w.conn).GetContext(operator, &accountv1.GetContextRequest{})
	require.NoError(t, err, "the session itself goes on")
}
