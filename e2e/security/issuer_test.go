package security_test

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"testing"

	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/e2e/wire"
	"github.com/turumba/turumba/e2e/world"
)

// secondIssuer is another issuer whose tokens the mesh accepts, for another client.
type secondIssuer struct {
	url string
	key *rsa.PrivateKey

	mu   sync.Mutex
	kids []string
}

const secondClient = "second-client"

func newSecondIssuer(t *testing.T) *secondIssuer {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	is := &secondIssuer{key: key}
	server := httptest.NewServer(is)
	t.Cleanup(server.Close)
	is.url = server.URL + "/pool"
	return is
}

// settings make a mesh accept the issuer.
func (is *secondIssuer) settings(t *testing.T) []string {
	t.Helper()
	u, err := url.Parse(is.url)
	require.NoError(t, err)
	return []string{
		"OIDC_TRUSTED_ISSUER=" + is.url, "OIDC_TRUSTED_PROFILE=cognito", "OIDC_TRUSTED_AUDIENCE=" + secondClient,
		"EGRESS_ALLOW=" + u.Hostname() + "/32:" + u.Port(),
	}
}

// publish shows the key under the ids; the mesh reads them at its first token.
func (is *secondIssuer) publish(kids ...string) {
	is.mu.Lock()
	defer is.mu.Unlock()
	is.kids = kids
}

// ServeHTTP implements http.Handler: the key set of the issuer.
func (is *secondIssuer) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	is.mu.Lock()
	defer is.mu.Unlock()
	var keys []map[string]any
	for _, kid := range is.kids {
		jwk := jwkOf(&is.key.PublicKey)
		jwk["kid"], jwk["use"], jwk["alg"] = kid, "sig", string(jose.RS256)
		keys = append(keys, jwk)
	}
	_, _ = w.Write(must(json.Marshal(map[string]any{"keys": keys}))) // the mesh asks again
}

// issuerAttacks are J17 and J18: with two issuers, each one's tokens count by its own
// keys and for its own people only, even if it calls its key as we call ours.
func issuerAttacks(t *testing.T, w *world.World, second *secondIssuer) {
	t.Helper()
	s := report.suite("two issuers")
	s.coverage = "J17, J18, 2 wires, 2 services"
	m := mint{Forger: w.Forger(t), sub: w.Vars["owner_user_id"]}
	second.publish(m.KID, "own")
	theirs := map[string]any{"iss": second.url, "client_id": secondClient}
	by := func(key *rsa.PrivateKey, claims map[string]any) string {
		return signed(key, segment(m.head(nil)), segment(m.claims(claims)))
	}
	ask := func(over, method, token string) wire.Answer {
		md, err := wire.FindMethod(method)
		require.NoError(t, err)
		got, err := w.Do(t.Context(), over, wire.Call{Method: md, Header: map[string]string{"authorization": "Bearer " + token}})
		require.NoError(t, err)
		return got
	}
	const contacts, messages, context = "turumba.account.v1.ContactService/ListContacts", "turumba.messaging.v1.MessageService/ListMessages", "turumba.account.v1.ContextService/GetContext"
	stranger := by(second.key, theirs)
	asKey := by(second.key, merged(theirs, map[string]any{"sub": w.Vars["api_key_id"]}))
	bad := map[string]string{
		"J17 their issuer by our key":    by(m.Key, theirs),
		"J18 our issuer by their key":    by(second.key, nil),
		"J18 our issuer, their own kid":  signed(second.key, segment(m.head(map[string]any{"kid": "own"})), segment(m.claims(nil))),
		"J17 their issuer, our client":   by(second.key, map[string]any{"iss": second.url}),
		"J17 our issuer, their client":   by(m.Key, map[string]any{"client_id": secondClient}),
		"J17 their issuer with a slash":  by(second.key, merged(theirs, map[string]any{"iss": second.url + "/"})),
		"J17 the folder of their issuer": by(second.key, merged(theirs, map[string]any{"iss": second.url[:len(second.url)-len("/pool")]})),
		"J17 both issuers":               by(second.key, merged(theirs, map[string]any{"iss": []string{second.url, m.Claims["iss"].(string)}})),
		"J15 their ID token":             by(second.key, merged(theirs, map[string]any{"token_use": "id", "aud": secondClient})),
	}
	for _, over := range wire.All() {
		for _, method := range []string{contacts, messages} {
			good := ask(over, method, m.with(nil, nil))
			s.check(t, good.Reason == "", "%s with a token of ours over %s: %s", method, over, good.Reason)
			reference := ask(over, method, "nonsense")
			for name, token := range bad {
				got := ask(over, method, token)
				s.check(t, got.Reason == "UNAUTHENTICATED" && sameError(got, reference), "%s of %s over %s: %s", name, method, over, got.Reason)
			}
			for name, token := range map[string]string{"a user's id": stranger, "an API key's id": asKey} {
				got := ask(over, method, token)
				s.check(t, got.Reason == "PERMISSION_DENIED", "J17 %s at the other issuer, %s over %s: %q", name, method, over, got.Reason)
			}
		}
		for name, token := range map[string]string{"a user's id": stranger, "an API key's id": asKey} {
			got := ask(over, context, token)
			s.check(t, got.Reason == "" && emptyContext(got), "J17 %s at the other issuer has a context over %s: %v", name, over, got)
		}
	}
}

// emptyContext reports whether a context names nobody and nothing.
func emptyContext(got wire.Answer) bool {
	body, ok := got.Body.(map[string]any)
	if !ok {
		return false
	}
	for _, v := range body {
		list, isList := v.([]any)
		if v != "" && (!isList || len(list) > 0) {
			return false
		}
	}
	return true
}
