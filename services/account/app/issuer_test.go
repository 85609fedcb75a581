package app_test

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/require"

	accountv1 "github.com/turumba/turumba/gen/turumba/account/v1"
	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/auth"
	"github.com/turumba/turumba/kit/config"
	"github.com/turumba/turumba/services/account/app"
	"github.com/turumba/turumba/services/account/identity/cognito/cognitotest"
)

// openID is an OpenID provider that gives access tokens by RFC 9068.
type openID struct {
	url    string
	signer jose.Signer
}

func newOpenID(t *testing.T) *openID {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	p := &openID{}
	options := (&jose.SignerOptions{}).WithType("at+jwt")
	p.signer, err = jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: jose.JSONWebKey{Key: key, KeyID: "k"}}, options)
	require.NoError(t, err)
	mux := http.NewServeMux()
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	p.url = server.URL
	answer := func(path string, v any) {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(v) }) // the client sees what is missing
	}
	answer("/.well-known/openid-configuration", map[string]string{"issuer": server.URL, "jwks_uri": server.URL + "/keys"})
	answer("/keys", jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: &key.PublicKey, KeyID: "k", Use: "sig", Algorithm: "RS256"}}})
	return p
}

func (p *openID) token(t *testing.T, sub string, now time.Time, groups ...string) string {
	t.Helper()
	payload, err := json.Marshal(map[string]any{
		"iss": p.url, "sub": sub, "aud": []string{"turumba", "other"}, "client_id": "spa", "iat": now.Unix(), "exp": now.Add(time.Hour).Unix(), "jti": sub, "roles": groups,
	})
	require.NoError(t, err)
	jws, err := p.signer.Sign(payload)
	require.NoError(t, err)
	token, err := jws.CompactSerialize()
	require.NoError(t, err)
	return token
}

// TestOtherIssuer: an issuer that is configured is found by discovery, and its tokens
// count for who they are of, and for nobody else.
func TestOtherIssuer(t *testing.T) {
	t.Parallel()
	p := newOpenID(t)
	w := start(t, func(cfg *app.Config, deps *app.Deps) {
		cfg.Identity.Trusted = auth.Trusted{Issuer: p.url, Profile: auth.ProfileRFC9068, Audience: []string{"turumba"}, GroupsClaim: "roles", OperatorsMFA: true}
		deps.HTTP = cognitotest.Client(t, p.url)
	})
	owner, ownerID, accountID := w.signUp(t, "owner@example.org")
	get := func(ctx context.Context) *accountv1.GetContextResponse {
		c, err := accountv1.NewContextServiceClient(w.conn).GetContext(ctx, &accountv1.GetContextRequest{})
		require.NoError(t, err)
		return c
	}
	require.Equal(t, []string{accountID}, get(owner).GetAccountIds(), "our own tokens count on")
	for name, sub := range map[string]string{"a stranger": "stranger", "the id of a user of ours": ownerID} {
		stranger := with(t.Context(), p.token(t, sub, w.clock.Now()))
		c := get(stranger)
		require.Empty(t, c.GetUserId(), name)
		require.Empty(t, c.GetAccountIds(), name)
		_, err := w.contacts.ListContacts(stranger, &accountv1.ListContactsRequest{})
		reason(t, errorv1.Reason_REASON_PERMISSION_DENIED, err)
		_, err = accountv1.NewUserServiceClient(w.conn).GetMe(stranger, &accountv1.GetMeRequest{})
		reason(t, errorv1.Reason_REASON_PERSON_REQUIRED, err)
	}
	suspend := func(groups ...string) error {
		ctx := with(t.Context(), p.token(t, "operator", w.clock.Now(), groups...))
		_, err := accountv1.NewOperatorServiceClient(w.conn).SuspendAccount(ctx, &accountv1.SuspendAccountRequest{AccountId: accountID, Reason: "x"})
		return err
	}
	reason(t, errorv1.Reason_REASON_PERMISSION_DENIED, suspend("operator"))
	require.NoError(t, suspend("operators"), "the configured claim has the groups")
}

func TestIdentitySettings(t *testing.T) {
	t.Parallel()
	cfg, err := config.Load[app.IdentitySettings](nil)
	require.NoError(t, err)
	require.Equal(t, app.ProviderLocal, cfg.Provider)
	_, err = config.Load[app.IdentitySettings]([]string{"IDENTITY_PROVIDER=ldap"})
	require.EqualError(t, err, `IDENTITY_PROVIDER: "ldap" is neither local nor cognito`)
	_, err = config.Load[app.IdentitySettings]([]string{"IDENTITY_PROVIDER=cognito", "COGNITO_REGION=eu-west-1", "COGNITO_CLIENT_ID=web", "AWS_ACCESS_KEY_ID=a", "OIDC_TRUSTED_ISSUER=x"})
	require.EqualError(t, err, `AWS_SECRET_ACCESS_KEY: is required with IDENTITY_PROVIDER=cognito
COGNITO_USER_POOL_ID: is required with IDENTITY_PROVIDER=cognito
OIDC_TRUSTED_AUDIENCE: is required with OIDC_TRUSTED_ISSUER
OIDC_TRUSTED_ISSUER: expected an https:// or http:// URL`)
}
