package auth_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/auth"
	"github.com/turumba/turumba/kit/config"
)

const otherIssuer = "https://other.example"

// TestTwoIssuers: each token counts by the keys and the rules of its own issuer, even
// where both call their keys the same (J17, J18).
func TestTwoIssuers(t *testing.T) {
	t.Parallel()
	ours, theirs := newSigner(t), newSigner(t)
	theirs.clock = ours.clock
	v, err := auth.NewVerifier(
		auth.VerifierConfig{Issuer: issuer, Profile: auth.ProfileCognito, Audience: []string{"web"}, Keys: ours.source, Clock: ours.clock},
		auth.VerifierConfig{Issuer: otherIssuer, Profile: auth.ProfileRFC9068, Audience: []string{"api"}, GroupsClaim: "roles", Keys: theirs.source, Clock: ours.clock},
	)
	require.NoError(t, err)
	other := map[string]any{"iss": otherIssuer, "aud": "api", "client_id": nil, "token_use": nil, "roles": []string{"ops"}}
	atJWT := with(head, map[string]any{"typ": "at+jwt"})

	first, err := v.Verify(t.Context(), ours.sign(head, ours.claims(nil)))
	require.NoError(t, err)
	second, err := v.Verify(t.Context(), theirs.sign(atJWT, theirs.claims(other)))
	require.NoError(t, err)
	require.Equal(t, first.Subject, second.Subject)
	require.NotEqual(t, first.Issuer, second.Issuer, "the same subject of two issuers is not the same user")
	require.Equal(t, []string{"operators"}, first.Groups)
	require.Equal(t, []string{"ops"}, second.Groups, "the groups come from the issuer's own claim")

	for name, token := range map[string]string{
		"their issuer, our key":           ours.sign(atJWT, ours.claims(other)),
		"our issuer, their key":           theirs.sign(head, theirs.claims(nil)),
		"their issuer, our profile":       theirs.sign(head, theirs.claims(map[string]any{"iss": otherIssuer})),
		"our issuer, their profile":       ours.sign(atJWT, ours.claims(map[string]any{"aud": "api", "client_id": nil, "token_use": nil})),
		"their issuer, our audience":      theirs.sign(atJWT, theirs.claims(with(other, map[string]any{"aud": "web"}))),
		"a third issuer":                  ours.sign(head, ours.claims(map[string]any{"iss": "https://third.example"})),
		"the issuers as a list":           ours.sign(head, ours.claims(map[string]any{"iss": []string{issuer, otherIssuer}})),
		"the issuer in other upper case":  ours.sign(head, ours.claims(map[string]any{"iss": "HTTPS://issuer.example"})),
		"a second issuer in another case": ours.sign(head, ours.claims(map[string]any{"ISS": otherIssuer})),
	} {
		_, err := v.Verify(t.Context(), token)
		require.True(t, apierr.HasReason(err, errorv1.Reason_REASON_UNAUTHENTICATED), "%s: %v", name, err)
	}
	_, err = auth.NewVerifier(
		auth.VerifierConfig{Issuer: issuer, Profile: auth.ProfileCognito, Audience: []string{"web"}, Keys: ours.source, Clock: ours.clock},
		auth.VerifierConfig{Issuer: issuer, Profile: auth.ProfileCognito, Audience: []string{"app"}, Keys: theirs.source, Clock: ours.clock},
	)
	require.ErrorContains(t, err, "given twice")
}

// TestOneIssuerDown: the tokens of the other still count.
func TestOneIssuerDown(t *testing.T) {
	t.Parallel()
	ours, theirs := newSigner(t), newSigner(t)
	theirs.down.Store(true)
	v, err := auth.NewVerifier(
		auth.VerifierConfig{Issuer: issuer, Profile: auth.ProfileCognito, Audience: []string{"web"}, Keys: ours.source, Clock: ours.clock},
		auth.VerifierConfig{Issuer: otherIssuer, Profile: auth.ProfileCognito, Audience: []string{"web"}, Keys: theirs.source, Clock: ours.clock},
	)
	require.NoError(t, err)
	for range 2 { // the second asks nobody: the last try was a moment ago
		_, err = v.Verify(t.Context(), theirs.sign(head, theirs.claims(map[string]any{"iss": otherIssuer})))
		require.True(t, apierr.HasReason(err, errorv1.Reason_REASON_UNAVAILABLE), "%v", err)
	}
	require.EqualValues(t, 1, theirs.reads.Load())
	_, err = v.Verify(t.Context(), ours.sign(head, ours.claims(nil)))
	require.NoError(t, err)
}

// TestDiscovery: the keys are found by the discovery document, which must be the
// issuer's own.
func TestDiscovery(t *testing.T) {
	t.Parallel()
	s := newSigner(t)
	names, leads, reads := "", "/keys", 0
	mux := http.NewServeMux()
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	mux.HandleFunc("GET /.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		reads++
		require.NoError(t, json.NewEncoder(w).Encode(map[string]string{"issuer": server.URL + names, "jwks_uri": server.URL + leads}))
	})
	mux.HandleFunc("GET /keys", func(w http.ResponseWriter, _ *http.Request) {
		_, err := w.Write(s.doc.Load().([]byte))
		require.NoError(t, err)
	})
	mux.HandleFunc("GET /elsewhere", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/keys", http.StatusFound) })
	client := server.Client()
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse } // as kit/egress does
	verify := func() error {
		trusted := auth.Trusted{Issuer: server.URL, Profile: auth.ProfileRFC9068, Audience: []string{"api"}, GroupsClaim: "groups"}
		v, err := auth.NewVerifier(trusted.Configs(client, s.clock)...)
		require.NoError(t, err)
		token := s.sign(with(head, map[string]any{"typ": "at+jwt"}), s.claims(map[string]any{"iss": server.URL, "aud": "api"}))
		_, err = v.Verify(t.Context(), token)
		return err
	}
	require.NoError(t, verify())
	require.Equal(t, 1, reads)
	for _, change := range []struct{ names, leads string }{{"/tenant", "/keys"}, {"", "/nothing"}, {"", "/elsewhere"}} {
		names, leads = change.names, change.leads
		require.True(t, apierr.HasReason(verify(), errorv1.Reason_REASON_UNAVAILABLE), change)
	}
}

func TestTrustedSettings(t *testing.T) {
	t.Parallel()
	good := []string{"OIDC_TRUSTED_ISSUER=https://id.example", "OIDC_TRUSTED_AUDIENCE=a,b"}
	cfg, err := config.Load[auth.Trusted](good)
	require.NoError(t, err)
	require.Equal(t, []string{"a", "b"}, cfg.Audience)
	require.Equal(t, auth.ProfileRFC9068, cfg.Profile)
	none, err := config.Load[auth.Trusted](nil)
	require.NoError(t, err)
	require.Empty(t, none.Configs(nil, nil))
	for want, env := range map[string][]string{
		"OIDC_TRUSTED_AUDIENCE: is required with OIDC_TRUSTED_ISSUER":                                                     {"OIDC_TRUSTED_ISSUER=https://id.example"},
		"OIDC_TRUSTED_ISSUER: expected an https:// or http:// URL":                                                        {"OIDC_TRUSTED_ISSUER=id.example", "OIDC_TRUSTED_AUDIENCE=a"},
		`OIDC_TRUSTED_PROFILE: "jwt" is neither rfc9068 nor cognito`:                                                      append(good, "OIDC_TRUSTED_PROFILE=jwt"),
		"OIDC_JWKS_URL: expected an https:// or http:// URL":                                                              append(good, "OIDC_JWKS_URL=keys"),
		"OIDC_TRUSTED_ISSUER: is needed by OIDC_TRUSTED_AUDIENCE and OIDC_JWKS_URL":                                       {"OIDC_TRUSTED_AUDIENCE=a"},
		"OIDC_JWKS_URL: expected an https:// or http:// URL\nOIDC_TRUSTED_AUDIENCE: is required with OIDC_TRUSTED_ISSUER": {"OIDC_TRUSTED_ISSUER=https://id.example", "OIDC_JWKS_URL=keys"},
	} {
		_, err := config.Load[auth.Trusted](env)
		require.EqualError(t, err, want)
	}
}

// TestEndedSessions: a session ends by its id, or with all that began before a time.
func TestEndedSessions(t *testing.T) {
	t.Parallel()
	s := newSigner(t)
	v := s.verifier(t, auth.ProfileCognito)
	began := s.clock.Now().Add(-time.Hour).Truncate(time.Second)
	refreshed, err := v.Verify(t.Context(), s.sign(head, s.claims(map[string]any{"auth_time": began.Unix(), "origin_jti": "one"})))
	require.NoError(t, err)
	require.True(t, began.Equal(refreshed.AuthTime), "a session begins at its login, not when it is refreshed")
	fresh, err := v.Verify(t.Context(), s.sign(head, s.claims(map[string]any{"origin_jti": "two"})))
	require.NoError(t, err)
	require.True(t, s.clock.Now().Equal(fresh.AuthTime), "without auth_time it begins with its token")
	_, err = v.Verify(t.Context(), s.sign(head, s.claims(map[string]any{"auth_time": "yesterday"})))
	require.True(t, apierr.HasReason(err, errorv1.Reason_REASON_UNAUTHENTICATED), "%v", err)

	caller := auth.Caller{SessionID: "one", EndedSessions: []string{"one"}}
	require.True(t, caller.Ended(refreshed))
	caller = auth.Caller{SessionID: "two", EndedSessions: []string{"one"}}
	require.False(t, caller.Ended(fresh))
	caller = auth.Caller{SessionsSince: began.Add(time.Minute)}
	require.True(t, caller.Ended(refreshed))
	require.False(t, caller.Ended(fresh))
	require.True(t, caller.Ended(auth.Claims{}), "a token that does not tell when its session began")
	require.False(t, auth.Caller{}.Ended(auth.Claims{}))
	since := auth.Caller{SessionsSince: began.Add(300 * time.Millisecond)}
	require.True(t, since.Ended(refreshed), "a token of the very second does not count")
	since.KeptSessions = []string{"one"}
	require.False(t, since.Ended(refreshed), "but a session that was kept")
	require.True(t, since.Ended(auth.Claims{AuthTime: began, SessionID: "two"}))
}

// TestEpochs: our own tokens are held to the epoch that they tell, whatever the time, and
// nobody else's tokens tell one.
func TestEpochs(t *testing.T) {
	t.Parallel()
	s := newSigner(t)
	raw := s.sign(head, s.claims(map[string]any{"origin_jti": "one", "turumba:epoch": 7}))
	foreign, err := s.verifier(t, auth.ProfileCognito).Verify(t.Context(), raw)
	require.NoError(t, err)
	require.False(t, foreign.HasEpoch)
	own := auth.Claims{SessionID: "one", Epoch: 7, HasEpoch: true, AuthTime: s.clock.Now(), Groups: []string{"operators"}}
	later := s.clock.Now().Add(time.Hour)
	require.False(t, auth.Caller{CredentialEpoch: 7, SessionsSince: later}.Ended(own))
	require.False(t, auth.Caller{CredentialEpoch: 6}.Ended(own), "the cached context is older than the token")
	require.True(t, auth.Caller{CredentialEpoch: 8}.Ended(own))
	require.False(t, auth.Caller{CredentialEpoch: 8, KeptSessions: []string{"one"}}.Ended(own))
	require.True(t, auth.Caller{CredentialEpoch: 8, KeptSessions: []string{"two"}}.Ended(own))
	require.True(t, auth.Caller{CredentialEpoch: 7, EndedSessions: []string{"one"}}.Ended(own))
	require.True(t, auth.Caller{CredentialEpoch: 8, KeptSessions: []string{""}}.Ended(auth.Claims{HasEpoch: true}))
	kept := auth.NewCachedContext(keeps{}, s.clock)
	caller, err := kept.Context(t.Context(), own)
	require.NoError(t, err)
	require.Empty(t, caller.Groups, "a token that only counts because its session was kept")
	own.Epoch = 8
	caller, err = kept.Context(t.Context(), own)
	require.NoError(t, err)
	require.Equal(t, []string{"operators"}, caller.Groups)
}

// keeps is a source whose user kept a session.
type keeps struct{}

// Context implements auth.ContextSource.
func (keeps) Context(context.Context, auth.Claims) (auth.Caller, error) {
	return auth.Caller{CredentialEpoch: 8, KeptSessions: []string{"one"}}, nil
}

// TestGroupsOfOthers: groups of another issuer make operators only where somebody says
// that the issuer asks those for a second factor.
func TestGroupsOfOthers(t *testing.T) {
	t.Parallel()
	s := newSigner(t)
	raw := s.sign(head, s.claims(map[string]any{"cognito:groups": []string{"operators"}}))
	for enforced, want := range map[bool][]string{true: {"operators"}, false: nil} {
		cfg := auth.Trusted{Issuer: issuer, Profile: auth.ProfileCognito, Audience: []string{"web"}, OperatorsMFA: enforced}.Configs(nil, s.clock)[0]
		cfg.Keys = s.source
		v, err := auth.NewVerifier(cfg)
		require.NoError(t, err)
		c, err := v.Verify(t.Context(), raw)
		require.NoError(t, err)
		require.Equal(t, want, c.Groups, enforced)
	}
}
