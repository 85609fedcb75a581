package security_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/e2e/wire"
	"github.com/turumba/turumba/e2e/world"
)

// mint makes tokens, good and bad, with the mesh's key or others.
type mint struct {
	*world.Forger
	sub string
}

func segment(v any) string {
	b, ok := v.([]byte)
	if !ok {
		b, _ = json.Marshal(v) // maps of plain values
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

func (m mint) head(change map[string]any) map[string]any {
	return merged(map[string]any{"alg": "RS256", "kid": m.KID, "typ": "JWT"}, change)
}

func (m mint) claims(change map[string]any) map[string]any {
	return merged(merged(m.Claims, map[string]any{"sub": m.sub}), change)
}

func merged(base, change map[string]any) map[string]any {
	out := maps.Clone(base)
	for k, v := range change {
		if v == nil {
			delete(out, k)
		} else {
			out[k] = v
		}
	}
	return out
}

// signed is header.payload with an RS256 signature by key.
func signed(key *rsa.PrivateKey, header, payload string) string {
	input := header + "." + payload
	sum := sha256.Sum256([]byte(input))
	sig, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
	if err != nil {
		panic(err)
	}
	return input + "." + segment(sig)
}

// with is a token of our key with other header fields and claims.
func (m mint) with(head, claims map[string]any) string {
	return signed(m.Key, segment(m.head(head)), segment(m.claims(claims)))
}

// raw is a token of our key over a payload as it is.
func (m mint) raw(payload string) string {
	return signed(m.Key, segment(m.head(nil)), segment([]byte(payload)))
}

// hmacToken signs with a shared secret, here the public key in some form.
func (m mint) hmacToken(alg string, secret []byte) string {
	input := segment(m.head(map[string]any{"alg": alg})) + "." + segment(m.claims(nil))
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(input))
	return input + "." + segment(mac.Sum(nil))
}

// other signs by another algorithm with a key that the header brings along.
func (m mint) other(t *testing.T, alg jose.SignatureAlgorithm, key any) string {
	t.Helper()
	payload, err := json.Marshal(m.claims(nil))
	require.NoError(t, err)
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: jose.JSONWebKey{Key: key, KeyID: m.KID}}, &jose.SignerOptions{EmbedJWK: false})
	require.NoError(t, err)
	jws, err := signer.Sign(payload)
	require.NoError(t, err)
	token, err := jws.CompactSerialize()
	require.NoError(t, err)
	return token
}

// tokenAttacks is the list J01–J30: every bad token gets the same answer over
// both wires, and nothing is fetched from where a token points.
func tokenAttacks(t *testing.T, w *world.World) {
	t.Helper()
	s := report.suite("token attacks")
	s.coverage = "J01–J30, 2 wires"
	var fetched atomic.Int32
	evil := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fetched.Add(1)
		w.WriteHeader(http.StatusOK)
	}))
	defer evil.Close()
	m := mint{Forger: w.Forger(t), sub: w.Vars["owner_user_id"]}
	md, err := wire.FindMethod("turumba.account.v1.ContactService/ListContacts")
	require.NoError(t, err)

	ask := func(over, token string) wire.Answer {
		got, err := w.Do(t.Context(), over, wire.Call{Method: md, Header: map[string]string{"authorization": token}})
		require.NoError(t, err)
		return got
	}
	reference := map[string]wire.Answer{}
	for _, over := range wire.All() {
		good := ask(over, "Bearer "+m.with(nil, nil))
		s.check(t, good.Reason == "", "a good token over %s: %s", over, good.Reason)
		reference[over] = ask(over, "Bearer nonsense")
	}
	bad := m.badTokens(t, evil.URL)
	for name, token := range bad {
		for _, over := range wire.All() {
			got := ask(over, "Bearer "+token)
			ok := got.Reason == "UNAUTHENTICATED" && sameError(got, reference[over]) || got.Reason == "REFUSED"
			s.check(t, ok, "%s over %s: %s %s", name, over, got.Reason, got.Detail)
		}
	}
	good := m.with(nil, nil)
	for name, value := range map[string]string{
		"J25 two tokens in a list": "Bearer " + good + ", Bearer " + good, "J25 two spaces": "Bearer  " + good, "J25 no scheme": good,
		"J25 basic": "Basic " + good, "J25 empty": "Bearer ", "J25 trailing text": "Bearer " + good + " x",
	} {
		for _, over := range wire.All() {
			got := ask(over, value)
			s.check(t, got.Reason == "UNAUTHENTICATED" || got.Reason == "REFUSED", "%s over %s: %q", name, over, got.Reason)
		}
	}
	elsewhere(t, w, s, good)
	s.check(t, fetched.Load() == 0, "a key was fetched from where a token pointed, %d times", fetched.Load())
}

// sameError compares what a caller sees, so that no body tells why.
func sameError(a, b wire.Answer) bool {
	return a.HTTP == b.HTTP && a.Code == b.Code && a.Detail == b.Detail
}

// badTokens are those that no check may let through.
func (m mint) badTokens(t *testing.T, evil string) map[string]string {
	t.Helper()
	foreignKey, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	der, err := x509.MarshalPKIXPublicKey(&m.Key.PublicKey)
	require.NoError(t, err)
	public := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	good := m.with(nil, nil)
	parts := strings.Split(good, ".")
	unsigned := func(alg any) string {
		return segment(m.head(map[string]any{"alg": alg})) + "." + parts[1] + "."
	}
	iat, _ := m.Claims["iat"].(int64)
	out := map[string]string{
		"J01 none": unsigned("none"), "J01 None": unsigned("None"), "J01 nOnE": unsigned("nOnE"), "J01 empty": unsigned(""), "J01 missing": segment(map[string]any{"kid": m.KID}) + "." + parts[1] + ".",
		"J02 HS256 with PEM": m.hmacToken("HS256", public), "J02 HS256 with DER": m.hmacToken("HS256", der), "J02 HS256 with the modulus": m.hmacToken("HS256", m.Key.N.Bytes()),
		"J03 HS384": m.hmacToken("HS384", public), "J03 HS512": m.hmacToken("HS512", public),
		"J04 RS384": m.other(t, jose.RS384, m.Key), "J04 RS512": m.other(t, jose.RS512, m.Key), "J04 PS256": m.other(t, jose.PS256, m.Key), "J04 ES256": m.other(t, jose.ES256, ec), "J04 EdDSA": m.other(t, jose.EdDSA, ed),
		"J05 stripped": parts[0] + "." + parts[1], "J05 empty": parts[0] + "." + parts[1] + ".", "J05 truncated": good[:len(good)-10], "J05 bit flipped": flip(good),
		"J05 trailing": good + "AA", "J05 padded": good + "=", "J05 std base64": parts[0] + "." + parts[1] + "." + strings.NewReplacer("-", "+", "_", "/").Replace(parts[2]) + "+/",
		"J06 kid missing": m.with(map[string]any{"kid": nil}, nil), "J06 kid empty": m.with(map[string]any{"kid": ""}, nil), "J06 kid unknown": m.with(map[string]any{"kid": "other"}, nil),
		"J06 kid long": m.with(map[string]any{"kid": strings.Repeat("k", 4096)}, nil), "J06 kid path": m.with(map[string]any{"kid": "../../etc/passwd"}, nil),
		"J06 kid SQL": m.with(map[string]any{"kid": "' OR 1=1--"}, nil), "J06 kid NUL": m.with(map[string]any{"kid": m.KID + "\x00"}, nil), "J06 kid array": m.with(map[string]any{"kid": []string{m.KID}}, nil),
		"J07 another's signature": signed(foreignKey, parts[0], parts[1]), "J17 another pool, same sub": m.with(nil, map[string]any{"iss": "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_other"}),
		"J08 jku": signed(foreignKey, segment(m.head(map[string]any{"jku": evil})), parts[1]), "J08 x5u": signed(foreignKey, segment(m.head(map[string]any{"x5u": evil})), parts[1]),
		"J08 jwk": signed(foreignKey, segment(m.head(map[string]any{"jwk": jwkOf(&foreignKey.PublicKey)})), parts[1]), "J08 x5c": signed(foreignKey, segment(m.head(map[string]any{"x5c": []string{base64.StdEncoding.EncodeToString(der)}})), parts[1]),
		"J09 crit": m.with(map[string]any{"crit": []string{"exp"}}, nil), "J09 b64": m.with(map[string]any{"b64": false, "crit": []string{"b64"}}, nil), "J09 zip": m.with(map[string]any{"crit": []string{"zip"}, "zip": "DEF"}, nil),
		"J09 nested":   signed(m.Key, segment(m.head(map[string]any{"cty": "JWT"})), segment([]byte(good))),
		"J10 exp past": m.with(nil, map[string]any{"exp": iat - 61}), "J10 exp missing": m.with(nil, map[string]any{"exp": nil}), "J10 exp string": m.with(nil, map[string]any{"exp": "tomorrow"}),
		"J10 exp huge": m.with(nil, map[string]any{"exp": 1e300}), "J10 exp negative": m.with(nil, map[string]any{"exp": -1}), "J10 exp zero": m.with(nil, map[string]any{"exp": 0}),
		"J11 nbf future": m.with(nil, map[string]any{"nbf": iat + 3600}), "J11 iat future": m.with(nil, map[string]any{"iat": iat + 3600}),
		"J12 past the leeway": m.with(nil, map[string]any{"exp": iat - 62}),
		"J13 iss missing":     m.with(nil, map[string]any{"iss": nil}), "J13 iss other": m.with(nil, map[string]any{"iss": "https://evil.example"}), "J13 iss slash": m.with(nil, map[string]any{"iss": m.Claims["iss"].(string) + "/"}),
		"J13 iss upper case": m.with(nil, map[string]any{"iss": strings.ToUpper(m.Claims["iss"].(string))}), "J13 iss prefix": m.with(nil, map[string]any{"iss": m.Claims["iss"].(string) + ".evil"}),
		"J15 id token": m.with(nil, map[string]any{"token_use": "id", "aud": "turumba"}), "J15 token_use missing": m.with(nil, map[string]any{"token_use": nil}), "J15 client_id other": m.with(nil, map[string]any{"client_id": "other"}),
		"J15 client_id missing": m.with(nil, map[string]any{"client_id": nil}), "J14 aud number": m.with(nil, map[string]any{"aud": 7, "client_id": nil}), "J14 client_id array": m.with(nil, map[string]any{"client_id": []string{"turumba"}}),
		"J23 five segments": good + ".x.y", "J23 dots": strings.Repeat(".", 8000), "J23 long": good + strings.Repeat("A", 9000), "J23 long header": m.with(map[string]any{"pad": strings.Repeat("h", 2000)}, nil), "J23 one segment": "abc",
		"J24 sub twice": m.raw(strings.Replace(string(must(json.Marshal(m.claims(nil)))), "{", `{"sub":"x",`, 1)), "J24 not UTF-8": m.raw("{\"sub\":\"\xff\xfe\"}"), "J24 deep": m.raw(strings.Repeat(`{"a":`, 1500) + "1" + strings.Repeat("}", 1500)),
		"J24 alg twice": signed(m.Key, segment([]byte(`{"alg":"RS256","alg":"none","kid":"`+m.KID+`"}`)), parts[1]), "J24 array": m.raw("[]"), "J24 not JSON": m.raw("hello"), "J24 two values": m.raw(string(must(json.Marshal(m.claims(nil)))) + "{}"),
		"J26 sub empty": m.with(nil, map[string]any{"sub": ""}), "J26 sub missing": m.with(nil, map[string]any{"sub": nil}), "J26 sub number": m.with(nil, map[string]any{"sub": 7}),
		"J28 expired and unsigned": parts[0] + "." + segment(m.claims(map[string]any{"exp": iat - 1000})) + "." + parts[2],
	}
	return out
}

func must(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}

func jwkOf(key *rsa.PublicKey) map[string]any {
	return map[string]any{"kty": "RSA", "n": segment(key.N.Bytes()), "e": "AQAB"}
}

// flip changes one bit in the middle of the signature.
func flip(token string) string {
	b := []byte(token)
	i := len(b) - 100
	if b[i] == 'A' {
		b[i] = 'B'
	} else {
		b[i] = 'A'
	}
	return string(b)
}

// elsewhere sends a good token where none is read.
func elsewhere(t *testing.T, w *world.World, s *suite, token string) {
	t.Helper()
	for name, change := range map[string]func(*http.Request){
		"query string": func(r *http.Request) { r.URL.RawQuery = "access_token=" + token },
		"cookie":       func(r *http.Request) { r.Header.Set("Cookie", "access_token="+token) },
		"protocol":     func(r *http.Request) { r.Header.Set("Sec-WebSocket-Protocol", "bearer, "+token) },
		"two headers":  func(r *http.Request) { r.Header["Authorization"] = []string{"Bearer " + token, "Bearer " + token} },
		"metadata":     func(r *http.Request) { r.Header.Set("Grpc-Metadata-Authorization", "Bearer "+token) },
		"gateway":      func(r *http.Request) { r.Header.Set("Grpcgateway-Authorization", "Bearer "+token) },
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.BaseURL+"/v1/contacts", nil)
		require.NoError(t, err)
		change(req)
		res, err := w.HTTP.Do(req)
		require.NoError(t, err)
		require.NoError(t, res.Body.Close())
		want := res.StatusCode == http.StatusUnauthorized || name == "query string" && res.StatusCode == http.StatusBadRequest
		s.check(t, want, "J25 a token in %s: %d", name, res.StatusCode)
	}
}
