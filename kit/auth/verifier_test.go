package auth_test

import (
	"context"
	"crypto"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/require"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/auth"
	"github.com/turumba/turumba/kit/clock"
)

const issuer = "https://issuer.example"

// signer makes tokens, good and bad.
type signer struct {
	key   *rsa.PrivateKey
	clock *clock.Fake
	reads atomic.Int32
	down  atomic.Bool
	doc   atomic.Value
}

func newSignerClock() *clock.Fake {
	return clock.NewFake(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
}

func newSigner(t testing.TB) *signer {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	s := &signer{key: key, clock: newSignerClock()}
	s.publish(t, jose.JSONWebKey{Key: &key.PublicKey, KeyID: "k1", Use: "sig", Algorithm: "RS256"})
	return s
}

func (s *signer) publish(t testing.TB, keys ...jose.JSONWebKey) {
	t.Helper()
	b, err := json.Marshal(jose.JSONWebKeySet{Keys: keys})
	require.NoError(t, err)
	s.doc.Store(b)
}

func (s *signer) source(context.Context) ([]byte, error) {
	s.reads.Add(1)
	if s.down.Load() {
		return nil, errors.New("connection refused")
	}
	return s.doc.Load().([]byte), nil
}

func (s *signer) verifier(t testing.TB, profile string) *auth.Verifier {
	t.Helper()
	v, err := auth.NewVerifier(auth.VerifierConfig{Issuer: issuer, Profile: profile, Audience: []string{"web"}, Keys: s.source, Clock: s.clock})
	require.NoError(t, err)
	return v
}

// claims are those of a good cognito-shaped access token.
func (s *signer) claims(change map[string]any) map[string]any {
	now := s.clock.Now().Unix()
	c := map[string]any{
		"iss": issuer, "sub": "user-1", "client_id": "web", "token_use": "access", "jti": "t1",
		"iat": now, "exp": now + 900, "cognito:groups": []string{"operators"},
	}
	maps.Copy(c, change)
	for k, v := range c {
		if v == nil {
			delete(c, k)
		}
	}
	return c
}

func segment(v any) string {
	b, ok := v.([]byte)
	if !ok {
		b, _ = json.Marshal(v)
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

func (s *signer) sign(header any, claims map[string]any) string {
	return s.signWith(s.key, header, claims)
}

func (s *signer) signWith(key *rsa.PrivateKey, header any, claims map[string]any) string {
	input := segment(header) + "." + segment(claims)
	sum := sha256.Sum256([]byte(input))
	sig, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
	if err != nil {
		panic(err)
	}
	return input + "." + segment(sig)
}

var head = map[string]any{"alg": "RS256", "kid": "k1", "typ": "JWT"}

func with(base map[string]any, change map[string]any) map[string]any {
	m := maps.Clone(base)
	maps.Copy(m, change)
	return m
}

func TestVerifyAccepts(t *testing.T) {
	t.Parallel()
	s := newSigner(t)
	c, err := s.verifier(t, auth.ProfileCognito).Verify(t.Context(), s.sign(head, s.claims(nil)))
	require.NoError(t, err)
	require.Equal(t, "user-1", c.Subject)
	require.Equal(t, []string{"operators"}, c.Groups)
	require.Equal(t, s.clock.Now().Add(15*time.Minute).Unix(), c.Expiry.Unix())

	for _, aud := range []any{"web", []string{"web"}, []string{"mobile", "web"}} {
		_, err = s.verifier(t, auth.ProfileRFC9068).Verify(t.Context(), s.sign(with(head, map[string]any{"typ": "at+jwt"}), s.claims(map[string]any{"aud": aud, "client_id": nil, "token_use": nil})))
		require.NoError(t, err, "one of the audiences is ours")
	}
	_, err = s.verifier(t, auth.ProfileCognito).Verify(t.Context(), s.sign(head, s.claims(map[string]any{"exp": s.clock.Now().Unix() - 59})))
	require.NoError(t, err, "clocks may differ by 60 s")
}

// TestVerifyRefuses is the list of forgeries and misuses.
func TestVerifyRefuses(t *testing.T) {
	t.Parallel()
	s := newSigner(t)
	other, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	good := s.sign(head, s.claims(nil))
	parts := strings.Split(good, ".")
	now := s.clock.Now().Unix()
	hs := segment(map[string]any{"alg": "HS256", "kid": "k1"}) + "." + parts[1]
	mac := hmac.New(sha256.New, s.key.N.Bytes())
	mac.Write([]byte(hs))

	cases := map[string]string{
		"empty":                      "",
		"one segment":                "abc",
		"four segments":              good + ".x",
		"alg none":                   segment(map[string]any{"alg": "none"}) + "." + parts[1] + ".",
		"alg none with kid":          segment(map[string]any{"alg": "none", "kid": "k1"}) + "." + parts[1] + ".",
		"HS256 with the public key":  hs + "." + segment(mac.Sum(nil)),
		"RS512 in the header":        s.sign(with(head, map[string]any{"alg": "RS512"}), s.claims(nil)),
		"alg in lower case":          s.sign(with(head, map[string]any{"alg": "rs256"}), s.claims(nil)),
		"another key, same kid":      s.signWith(other, head, s.claims(nil)),
		"unknown kid":                s.signWith(other, with(head, map[string]any{"kid": "k9"}), s.claims(nil)),
		"no kid":                     s.sign(map[string]any{"alg": "RS256"}, s.claims(nil)),
		"empty kid":                  s.sign(with(head, map[string]any{"kid": ""}), s.claims(nil)),
		"kid is a path":              s.sign(with(head, map[string]any{"kid": "../../etc/passwd"}), s.claims(nil)),
		"key in the header (jwk)":    s.signWith(other, with(head, map[string]any{"jwk": jose.JSONWebKey{Key: &other.PublicKey, KeyID: "k1"}}), s.claims(nil)),
		"jku":                        s.signWith(other, with(head, map[string]any{"jku": "https://evil.example/jwks"}), s.claims(nil)),
		"x5u":                        s.signWith(other, with(head, map[string]any{"x5u": "https://evil.example/cert"}), s.claims(nil)),
		"crit":                       s.sign(with(head, map[string]any{"crit": []string{"exp"}}), s.claims(nil)),
		"b64 false":                  s.sign(with(head, map[string]any{"b64": false, "crit": []string{"b64"}}), s.claims(nil)),
		"header with a key twice":    s.sign([]byte(`{"alg":"none","alg":"RS256","kid":"k1"}`), s.claims(nil)),
		"header is a list":           s.sign([]byte(`["RS256"]`), s.claims(nil)),
		"payload changed":            parts[0] + "." + segment(s.claims(map[string]any{"sub": "user-2"})) + "." + parts[2],
		"signature cut":              parts[0] + "." + parts[1] + "." + parts[2][:20],
		"no signature":               parts[0] + "." + parts[1] + ".",
		"wrong issuer":               s.sign(head, s.claims(map[string]any{"iss": "https://evil.example"})),
		"issuer with a slash more":   s.sign(head, s.claims(map[string]any{"iss": issuer + "/"})),
		"no issuer":                  s.sign(head, s.claims(map[string]any{"iss": nil})),
		"another client":             s.sign(head, s.claims(map[string]any{"client_id": "mobile"})),
		"no client":                  s.sign(head, s.claims(map[string]any{"client_id": nil})),
		"client in aud only":         s.sign(head, s.claims(map[string]any{"client_id": nil, "aud": "web"})),
		"ID token":                   s.sign(head, s.claims(map[string]any{"token_use": "id", "aud": "web"})),
		"no token_use":               s.sign(head, s.claims(map[string]any{"token_use": nil})),
		"refresh token":              s.sign(head, s.claims(map[string]any{"token_use": "refresh"})),
		"expired":                    s.sign(head, s.claims(map[string]any{"exp": now - 61})),
		"no exp":                     s.sign(head, s.claims(map[string]any{"exp": nil})),
		"exp is text":                s.sign(head, s.claims(map[string]any{"exp": "tomorrow"})),
		"exp is negative":            s.sign(head, s.claims(map[string]any{"exp": -1})),
		"nbf in the future":          s.sign(head, s.claims(map[string]any{"nbf": now + 120})),
		"iat in the future":          s.sign(head, s.claims(map[string]any{"iat": now + 120})),
		"no sub":                     s.sign(head, s.claims(map[string]any{"sub": nil})),
		"empty sub":                  s.sign(head, s.claims(map[string]any{"sub": ""})),
		"oversized":                  s.sign(head, s.claims(map[string]any{"pad": strings.Repeat("x", 9000)})),
		"padding characters":         parts[0] + "=." + parts[1] + "." + parts[2],
		"JSON serialisation":         `{"payload":"` + parts[1] + `","protected":"` + parts[0] + `","signature":"` + parts[2] + `"}`,
		"white space":                good + " ",
		"nested token in the claims": segment(head) + "." + segment([]byte(good)) + "." + parts[2],
	}
	v := s.verifier(t, auth.ProfileCognito)
	for name, token := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := v.Verify(t.Context(), token)
			require.True(t, apierr.HasReason(err, errorv1.Reason_REASON_UNAUTHENTICATED), "%v", err)
			require.Equal(t, "the token is missing or not valid", apierr.From(err).Message)
		})
	}
	t.Run("rfc9068", func(t *testing.T) {
		t.Parallel()
		v := s.verifier(t, auth.ProfileRFC9068)
		for name, token := range map[string]string{
			"cognito token": good,
			"typ JWT":       s.sign(head, s.claims(map[string]any{"aud": "web"})),
			"other aud":     s.sign(with(head, map[string]any{"typ": "at+jwt"}), s.claims(map[string]any{"aud": "mobile"})),
			"no aud":        s.sign(with(head, map[string]any{"typ": "at+jwt"}), s.claims(nil)),
			"empty aud":     s.sign(with(head, map[string]any{"typ": "at+jwt"}), s.claims(map[string]any{"aud": []string{}})),
			"aud number":    s.sign(with(head, map[string]any{"typ": "at+jwt"}), s.claims(map[string]any{"aud": 7})),
			"ID token":      s.sign(head, s.claims(map[string]any{"aud": "web", "nonce": "n", "at_hash": "h"})),
		} {
			_, err := v.Verify(t.Context(), token)
			require.True(t, apierr.HasReason(err, errorv1.Reason_REASON_UNAUTHENTICATED), name)
		}
	})
}

// TestOddKeySets is J19: what is no good signing key, or no key set, opens nothing.
func TestOddKeySets(t *testing.T) {
	t.Parallel()
	s := newSigner(t)
	odd := func(change func(*jose.JSONWebKey)) []byte {
		k := jose.JSONWebKey{Key: &s.key.PublicKey, KeyID: "k1", Use: "sig", Algorithm: "RS256"}
		change(&k)
		b, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{k}})
		require.NoError(t, err)
		return b
	}
	for name, doc := range map[string][]byte{
		"for encryption":    odd(func(k *jose.JSONWebKey) { k.Use = "enc" }),
		"another algorithm": odd(func(k *jose.JSONWebKey) { k.Algorithm = "PS256" }),
		"a shared secret":   odd(func(k *jose.JSONWebKey) { k.Key = s.key.N.Bytes() }),
		"exponent 1":        odd(func(k *jose.JSONWebKey) { k.Key = &rsa.PublicKey{N: s.key.N, E: 1} }),
		"no id":             odd(func(k *jose.JSONWebKey) { k.KeyID = "" }),
		"invalid JSON":      []byte("{"),
		"a page":            []byte("<html>"),
		"too large":         append(odd(func(*jose.JSONWebKey) {}), make([]byte, 10<<20)...),
	} {
		s.doc.Store(doc)
		_, err := s.verifier(t, auth.ProfileCognito).Verify(t.Context(), s.sign(head, s.claims(nil)))
		require.True(t, apierr.HasReason(err, errorv1.Reason_REASON_UNAUTHENTICATED) || apierr.HasReason(err, errorv1.Reason_REASON_UNAVAILABLE), "%s: %v", name, err)
	}
	s.doc.Store(odd(func(*jose.JSONWebKey) {}))
	_, err := s.verifier(t, auth.ProfileCognito).Verify(t.Context(), s.sign(head, s.claims(nil)))
	require.NoError(t, err)
}

// TestSmallKeysAreNoKeys: a set of nothing that we may use is an outage of the issuer
// (ADR 0046); it opens nothing, and is no reason to log people out.
func TestSmallKeysAreNoKeys(t *testing.T) {
	t.Parallel()
	s := newSigner(t)
	small := newSigner(t).key
	small.N.Rsh(small.N, 1024) // what a 1024-bit key would look like in the JWKS
	s.publish(t, jose.JSONWebKey{Key: &small.PublicKey, KeyID: "k1", Use: "sig"})
	_, err := s.verifier(t, auth.ProfileCognito).Verify(t.Context(), s.sign(head, s.claims(nil)))
	require.True(t, apierr.HasReason(err, errorv1.Reason_REASON_UNAVAILABLE))
}

type countingSource struct {
	calls atomic.Int32
	err   error
}

func (c *countingSource) Context(context.Context, auth.Claims) (auth.Caller, error) {
	c.calls.Add(1)
	return auth.Caller{UserID: "u"}, c.err
}

func TestCachedContext(t *testing.T) {
	t.Parallel()
	src, now := &countingSource{}, clock.NewFake(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	c := auth.NewCachedContext(src, now)
	get := func(token string) (auth.Caller, error) {
		return c.Context(t.Context(), auth.Claims{Issuer: "i", Subject: "s", TokenID: token})
	}
	for _, token := range []string{"t1", "t2"} {
		caller, err := get(token)
		require.NoError(t, err)
		require.Equal(t, token, caller.TokenID, "what belongs to the token is not shared")
	}
	require.EqualValues(t, 1, src.calls.Load())
	src.err = apierr.New(errorv1.Reason_REASON_UNAVAILABLE, "away")
	now.Advance(6 * time.Second)
	_, err := get("t1")
	require.NoError(t, err, "a known context serves while the source is away")
	now.Advance(30 * time.Second)
	_, err = get("t1")
	require.Error(t, err, "and then fails closed")
	src.err = nil
	_, err = get("t1")
	require.NoError(t, err)
	src.err = apierr.NotFound("user")
	c.Invalidate()
	_, err = get("t1")
	require.Error(t, err)
}

func TestScopeTarget(t *testing.T) {
	t.Parallel()
	c := auth.Caller{Memberships: []auth.Membership{{AccountID: "a", Permissions: []string{"x"}}, {AccountID: "b", Permissions: []string{"x"}}, {AccountID: "c"}}}
	both := c.Scope("x")
	require.Equal(t, auth.Scope{"a", "b"}, both)
	_, err := both.Target("", c)
	require.True(t, apierr.HasReason(err, errorv1.Reason_REASON_ACCOUNT_REQUIRED))
	_, err = both.Target("c", c)
	require.True(t, apierr.HasReason(err, errorv1.Reason_REASON_PERMISSION_DENIED))
	_, err = both.Target("z", c)
	require.True(t, apierr.HasReason(err, errorv1.Reason_REASON_NOT_FOUND))
	got, err := both.Target("b", c)
	require.NoError(t, err)
	require.Equal(t, "b", got)
	got, err = auth.Scope{"a"}.Target("", c)
	require.NoError(t, err)
	require.Equal(t, "a", got)
}

func FuzzVerify(f *testing.F) {
	s := newSigner(f)
	v := s.verifier(f, auth.ProfileCognito)
	good := s.sign(head, s.claims(nil))
	f.Add(good)
	f.Add("a.b.c")
	f.Fuzz(func(t *testing.T, token string) {
		if _, err := v.Verify(context.Background(), token); err == nil && token != good {
			t.Fatalf("accepted %q", token)
		}
	})
}
