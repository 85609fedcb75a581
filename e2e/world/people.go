package world

import (
	"context"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/cmd/turumba/single"
	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/vault"
)

// SQL runs statements on a database of the mesh as its superuser, past every
// rule of the product.
func (w *World) SQL(t *testing.T, database string, do func(ctx context.Context, conn *pgx.Conn)) {
	t.Helper()
	runSQL(t, w.Instance, database, do)
}

func runSQL(t *testing.T, in *single.Instance, database string, do func(ctx context.Context, conn *pgx.Conn)) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), databaseURL(in, database))
	require.NoError(t, err)
	do(t.Context(), conn)
	require.NoError(t, conn.Close(context.WithoutCancel(t.Context())))
}

// ForgetAttempts clears what tests have used up of the limits of this machine's
// address.
func (w *World) ForgetAttempts(t *testing.T) {
	t.Helper()
	forgetAttempts(t, w.Instance)
}

func forgetAttempts(t *testing.T, in *single.Instance) {
	t.Helper()
	runSQL(t, in, "turumba_account", func(ctx context.Context, conn *pgx.Conn) {
		_, err := conn.Exec(ctx, "DELETE FROM attempt_limits")
		require.NoError(t, err)
	})
}

// Hold is the role of a person in an account: its name and permissions.
type Hold struct {
	AccountID   string
	Permissions []string
}

// lasting keeps the sessions that Lasting made: no case that logs somebody out ends them,
// as none ends their tokens.
const lasting = `DO $$ BEGIN
	IF NOT EXISTS (SELECT FROM pg_trigger WHERE tgname = 'lasting') THEN
		CREATE FUNCTION lasting() RETURNS trigger LANGUAGE plpgsql AS $f$ BEGIN
			NEW.revoked_at := NULL;
			NEW.credential_epoch := (SELECT credential_epoch FROM users WHERE id = NEW.user_id);
			RETURN NEW;
		END $f$;
		CREATE TRIGGER lasting BEFORE UPDATE ON sessions FOR EACH ROW WHEN (OLD.id = OLD.user_id::text) EXECUTE FUNCTION lasting();
	END IF;
END $$`

// Person makes a user who holds these permissions, with a token under the name.
// It needs no login, so that hundreds can be made.
func (w *World) Person(t *testing.T, name string, holds ...Hold) (userID string) {
	t.Helper()
	userID = uuid.Must(uuid.NewV7()).String()
	w.SQL(t, "turumba_account", func(ctx context.Context, conn *pgx.Conn) {
		_, err := conn.Exec(ctx, `
			INSERT INTO users (id, email, idp_issuer, idp_subject, created_at, updated_at)
			SELECT $1, $2, idp_issuer, $1::uuid::text, now(), now() FROM users WHERE email = 'owner@golden.example'`, userID, name+"@people.example")
		require.NoError(t, err)
		for _, h := range holds {
			role := uuid.Must(uuid.NewV7()).String()
			_, err = conn.Exec(ctx, `INSERT INTO roles (id, account_id, name, permissions, created_at, updated_at) VALUES ($1, $2, $3, $4, now(), now())`,
				role, h.AccountID, "role of "+name, h.Permissions)
			require.NoError(t, err)
			_, err = conn.Exec(ctx, `INSERT INTO account_users (id, account_id, user_id, role_id, created_at) VALUES ($1, $2, $3, $4, now())`,
				uuid.Must(uuid.NewV7()).String(), h.AccountID, userID, role)
			require.NoError(t, err)
		}
	})
	w.Vars[name+"_user_id"] = userID
	w.Lasting(t, name)
	return userID
}

// Lasting gives a user of the name a session and a token that no case ends.
func (w *World) Lasting(t *testing.T, name string) {
	t.Helper()
	userID := w.Vars[name+"_user_id"]
	w.SQL(t, "turumba_account", func(ctx context.Context, conn *pgx.Conn) {
		_, err := conn.Exec(ctx, lasting)
		require.NoError(t, err)
		_, err = conn.Exec(ctx, `INSERT INTO sessions (user_id, id, credential_epoch, own, began_at, expires_at)
			SELECT id, id::text, credential_epoch, true, now(), now() + interval '1 day' FROM users WHERE id = $1`, userID)
		require.NoError(t, err)
	})
	w.Tokens[name] = w.Forger(t).Token(t, map[string]any{"sub": userID, "origin_jti": userID})
}

// Forger makes tokens with the mesh's own key, as only the mesh should.
type Forger struct {
	Key    *rsa.PrivateKey
	KID    string
	Claims map[string]any
}

// Forger opens the mesh's signing key with its master key.
func (w *World) Forger(t *testing.T) *Forger {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(w.DataDir, "master.key"))
	require.NoError(t, err)
	master, err := vault.ParseKey(string(text))
	require.NoError(t, err)
	v, err := vault.New(master)
	require.NoError(t, err)
	f := &Forger{}
	var sealed []byte
	var issuer string
	w.SQL(t, "turumba_account", func(ctx context.Context, conn *pgx.Conn) {
		require.NoError(t, conn.QueryRow(ctx, "SELECT kid, private_key FROM signing_keys ORDER BY created_at DESC LIMIT 1").Scan(&f.KID, &sealed))
		require.NoError(t, conn.QueryRow(ctx, "SELECT idp_issuer FROM users LIMIT 1").Scan(&issuer))
	})
	der, err := v.Open(vault.AAD{Account: "platform", Resource: f.KID, Field: "private_key", Version: 1}, sealed)
	require.NoError(t, err)
	key, err := x509.ParsePKCS8PrivateKey(der)
	require.NoError(t, err)
	f.Key = key.(*rsa.PrivateKey)
	now := clock.System().Now()
	f.Claims = map[string]any{
		"iss": issuer, "iat": now.Unix(), "exp": now.Add(time.Hour).Unix(), "token_use": "access", "client_id": "turumba", "jti": uuid.NewString(),
		"auth_time": now.Add(time.Hour).Unix(), // no case that logs somebody out ends it
	}
	return f
}

// Token signs the forger's claims with those given over them; a nil value
// removes a claim.
func (f *Forger) Token(t *testing.T, claims map[string]any) string {
	t.Helper()
	all := maps.Clone(f.Claims)
	for name, v := range claims {
		if v == nil {
			delete(all, name)
			continue
		}
		all[name] = v
	}
	payload, err := json.Marshal(all)
	require.NoError(t, err)
	return f.Sign(t, payload)
}

// Sign signs a payload as it is.
func (f *Forger) Sign(t *testing.T, payload []byte) string {
	t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: jose.JSONWebKey{Key: f.Key, KeyID: f.KID}}, (&jose.SignerOptions{}).WithType("JWT"))
	require.NoError(t, err)
	jws, err := signer.Sign(payload)
	require.NoError(t, err)
	token, err := jws.CompactSerialize()
	require.NoError(t, err)
	return token
}
