package auth_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	mathrand "math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/require"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/auth"
)

func public(key *rsa.PrivateKey, kid string) jose.JSONWebKey {
	return jose.JSONWebKey{Key: &key.PublicKey, KeyID: kid, Use: "sig", Algorithm: "RS256"}
}

// asker verifies a new token on each call, so that nothing comes from the cache.
func (s *signer) asker(t *testing.T, v *auth.Verifier) func(key *rsa.PrivateKey, kid string) error {
	t.Helper()
	n := 0
	return func(key *rsa.PrivateKey, kid string) error {
		n++
		_, err := v.Verify(t.Context(), s.signWith(key, with(head, map[string]any{"kid": kid}), s.claims(map[string]any{"jti": fmt.Sprint(n)})))
		return err
	}
}

func unauthenticated(t *testing.T, err error, why ...any) {
	t.Helper()
	require.True(t, apierr.HasReason(err, errorv1.Reason_REASON_UNAUTHENTICATED), append([]any{"%v %v", err}, why...)...)
}

func unavailable(t *testing.T, err error, why ...any) {
	t.Helper()
	require.True(t, apierr.HasReason(err, errorv1.Reason_REASON_UNAVAILABLE), append([]any{"%v %v", err}, why...)...)
}

// TestKeyRefresh: a kid that is not known asks the source every 5 s at most, and known
// keys are good for 24 h while the source is down.
func TestKeyRefresh(t *testing.T) {
	t.Parallel()
	s := newSigner(t)
	v := s.verifier(t, auth.ProfileCognito)
	ask := s.asker(t, v)
	require.Zero(t, s.reads.Load(), "the keys are read at the first token")
	require.NoError(t, ask(s.key, "k1"))
	for range 20 {
		unauthenticated(t, ask(s.key, "nobody"))
	}
	require.EqualValues(t, 1, s.reads.Load(), "unknown kids cause one refresh per 5 s, however many")
	s.clock.Advance(5 * time.Second)
	for i := range 20 {
		unauthenticated(t, ask(s.key, fmt.Sprint("nobody", i)))
	}
	require.EqualValues(t, 2, s.reads.Load())

	s.down.Store(true)
	s.clock.Advance(23 * time.Hour)
	require.NoError(t, ask(s.key, "k1"), "known keys are good for 24 h while the source is down")
	unavailable(t, ask(s.key, "nobody"), "nobody can say that a key is wrong while the source is down")
	s.clock.Advance(2 * time.Hour)
	unavailable(t, ask(s.key, "k1"))

	s.down.Store(false)
	s.clock.Advance(time.Minute)
	require.NoError(t, ask(s.key, "k1"))
	good := s.sign(head, s.claims(map[string]any{"jti": "good", "exp": s.clock.Now().Unix() + 3600}))
	_, err := v.Verify(t.Context(), good)
	require.NoError(t, err)
	other, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	s.publish(t, public(other, "k2")) // the key is gone
	s.clock.Advance(11 * time.Minute)
	unauthenticated(t, ask(s.key, "k1"))
	_, err = v.Verify(t.Context(), good)
	unauthenticated(t, err, "the verified tokens of a removed key are dropped")
}

// TestRecovery: what strangers ask for does not delay what the issuer's own people need.
func TestRecovery(t *testing.T) {
	t.Parallel()
	s := newSigner(t)
	ask := s.asker(t, s.verifier(t, auth.ProfileCognito))
	s.down.Store(true)
	unavailable(t, ask(s.key, "k1"))
	s.down.Store(false)
	unavailable(t, ask(s.key, "k1"), "one try a second")
	require.EqualValues(t, 1, s.reads.Load())
	s.clock.Advance(time.Second)
	require.NoError(t, ask(s.key, "k1"), "an issuer that was down at the first token")

	rotated, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	s.clock.Advance(5 * time.Second)
	unauthenticated(t, ask(rotated, "stranger"))
	s.publish(t, public(s.key, "k1"), public(rotated, "k2"))
	s.clock.Advance(5 * time.Second)
	require.NoError(t, ask(rotated, "k2"), "a new key after unknown kids used up the refresh")
	require.NoError(t, ask(s.key, "k1"))
}

// TestBadDays: whatever an issuer answers on a bad day, known keys go on for 24 h, and
// the first good answer ends it within a second.
func TestBadDays(t *testing.T) {
	t.Parallel()
	s := newSigner(t)
	unusable := public(s.key, "k1")
	unusable.Use = "enc"
	body := func(v any) string {
		b, err := json.Marshal(v)
		require.NoError(t, err)
		return string(b)
	}
	good := body(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{public(s.key, "k1")}})
	days := map[string]http.HandlerFunc{}
	for name, doc := range map[string]string{
		"no keys": `{"keys":[]}`, "keys are null": `{"keys":null}`, "an empty object": `{}`, "null": `null`, "a list": `[]`, "nothing": ``,
		"only unusable keys": body(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{unusable}}), "keys of no kind": `{"keys":[{},7,null,"k1"]}`,
		"a page": "<html><body>maintenance</body></html>", "an error as JSON": `{"error":"try later"}`,
		"half of it": good[:len(good)/2], "two of it": good + good, "huge": `{"keys":[],"pad":"` + strings.Repeat("x", 300<<10) + `"}`,
	} {
		days[name] = func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(doc)) }
	}
	for _, code := range []int{204, 304, 401, 403, 404, 429, 500, 502, 503} {
		days[fmt.Sprint("status ", code)] = func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
	}
	days["cut off"] = func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(len(good)))
		_, _ = w.Write([]byte(good[:50]))
	}
	for name, bad := range days {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := &signer{key: s.key, clock: newSignerClock()}
			var day atomic.Pointer[http.HandlerFunc]
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if h := day.Load(); h != nil {
					(*h)(w, r)
					return
				}
				_, _ = w.Write([]byte(good))
			}))
			t.Cleanup(server.Close)
			v, err := auth.NewVerifier(auth.VerifierConfig{Issuer: issuer, Profile: auth.ProfileCognito, Audience: []string{"web"}, Keys: auth.HTTPSource(server.Client(), server.URL), Clock: s.clock})
			require.NoError(t, err)
			ask := s.asker(t, v)

			day.Store(&bad)
			unavailable(t, ask(s.key, "k1"), "at the first token")
			day.Store(nil)
			s.clock.Advance(time.Second)
			require.NoError(t, ask(s.key, "k1"))
			day.Store(&bad)
			for range 23 {
				s.clock.Advance(time.Hour)
				require.NoError(t, ask(s.key, "k1"))
			}
			s.clock.Advance(2 * time.Hour)
			unavailable(t, ask(s.key, "k1"), "known keys are not good for ever")
			day.Store(nil)
			s.clock.Advance(time.Second)
			require.Eventually(t, func() bool { // a read of the bad day may still be on its way
				s.clock.Advance(time.Second)
				return ask(s.key, "k1") == nil
			}, 10*time.Second, 10*time.Millisecond)
		})
	}
}

// TestBrokenNeighbour: a key that cannot be read does not hide the others.
func TestBrokenNeighbour(t *testing.T) {
	t.Parallel()
	s := newSigner(t)
	raw, err := json.Marshal(public(s.key, "k1"))
	require.NoError(t, err)
	s.doc.Store([]byte(`{"keys":[{"kty":"RSA","kid":"b","n":"!","e":"AQAB"},{"kty":"AKP","kid":"c","alg":"ML-DSA-44","pub":"x"},` + string(raw) + `]}`))
	require.NoError(t, s.asker(t, s.verifier(t, auth.ProfileCognito))(s.key, "k1"))
}

// TestSlowIssuer: while a source hangs, who has a known key does not wait, and who must
// wait waits no longer than the own deadline.
func TestSlowIssuer(t *testing.T) {
	t.Parallel()
	s := newSigner(t)
	var hang atomic.Bool
	free := make(chan struct{})
	v, err := auth.NewVerifier(auth.VerifierConfig{Issuer: issuer, Profile: auth.ProfileCognito, Audience: []string{"web"}, Clock: s.clock, Keys: func(ctx context.Context) ([]byte, error) {
		if hang.Load() {
			<-free
		}
		return s.source(ctx)
	}})
	require.NoError(t, err)
	ask := s.asker(t, v)
	require.NoError(t, ask(s.key, "k1"))
	s.down.Store(true)
	s.clock.Advance(11 * time.Minute)
	require.NoError(t, ask(s.key, "k1"))
	hang.Store(true)
	s.clock.Advance(2 * time.Second)
	for range 10 {
		require.NoError(t, ask(s.key, "k1"))
		s.clock.Advance(2 * time.Second)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = v.Verify(ctx, s.sign(with(head, map[string]any{"kid": "k2"}), s.claims(nil)))
	unavailable(t, err)
	close(free)
}

// TestReadsAreBounded: by chance, strangers, rotations and outages, in any order: the
// source is read at most once in a second, and at most once in five while it is up and
// only strangers ask; a token of a key that is published is taken within 5 s of it.
func TestReadsAreBounded(t *testing.T) {
	t.Parallel()
	s := newSigner(t)
	other, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	for seed := range uint64(6) {
		chance := mathrand.New(mathrand.NewPCG(seed, 0))
		s := &signer{key: s.key, clock: newSignerClock()}
		s.publish(t, public(s.key, "k1"))
		ask := s.asker(t, s.verifier(t, auth.ProfileCognito))
		began, published, up := s.clock.Now(), time.Time{}, s.clock.Now()
		for range 200 {
			switch chance.IntN(6) {
			case 0:
				s.down.Store(!s.down.Load())
				up = s.clock.Now()
			case 1:
				if published.IsZero() {
					s.publish(t, public(s.key, "k1"), public(other, "k2"))
					published = s.clock.Now()
				}
			case 2:
				_ = ask(s.key, "k1")
			default:
				require.Error(t, ask(other, fmt.Sprint("stranger", chance.Uint32())))
			}
			err := ask(other, "k2")
			if since := s.clock.Now().Sub(later(published, up)); !published.IsZero() && !s.down.Load() && since >= 5*time.Second {
				require.NoError(t, err, "seed %d: %s after it could be read", seed, since)
			}
			s.clock.Advance(time.Duration(chance.IntN(3000)) * time.Millisecond)
		}
		ran := s.clock.Now().Sub(began).Seconds()
		require.LessOrEqual(t, float64(s.reads.Load()), math.Ceil(ran)+1, "seed %d", seed)
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// TestGroups: what the claim with the groups may be.
func TestGroups(t *testing.T) {
	t.Parallel()
	s := newSigner(t)
	v := s.verifier(t, auth.ProfileCognito)
	log := &lockedBuffer{}
	v.LogTo(slog.New(slog.NewTextHandler(log, nil)))
	for name, c := range map[string]struct {
		claim any
		want  []string
	}{
		"a list": {[]string{"a", "b"}, []string{"a", "b"}}, "a text": {"operators", []string{"operators"}}, "a text with a space": {"a b", []string{"a b"}},
		"none": {nil, nil}, "an empty list": {[]string{}, nil},
	} {
		got, err := v.Verify(t.Context(), s.sign(head, s.claims(map[string]any{"cognito:groups": c.claim, "jti": name})))
		require.NoError(t, err, name)
		require.Equal(t, c.want, got.Groups, name)
	}
	require.Empty(t, log.String())
	for name, c := range map[string]struct {
		claim any
		want  []string
	}{
		"an empty text": {"", nil}, "a number": {7, nil}, "a truth": {true, nil}, "an object": {map[string]any{"operators": true}, nil},
		"a mixed list": {[]any{"a", 7, nil, []string{"operators"}}, []string{"a"}}, "a list in a list": {[]any{[]string{"operators"}}, nil},
	} {
		got, err := v.Verify(t.Context(), s.sign(head, s.claims(map[string]any{"cognito:groups": c.claim, "jti": name})))
		require.NoError(t, err, name)
		require.Equal(t, c.want, got.Groups, name)
	}
	require.Equal(t, 1, strings.Count(log.String(), "level=WARN"), "told once: %s", log.String())
}

// TestOutageIsTold: at once, then once a minute, and its end.
func TestOutageIsTold(t *testing.T) {
	t.Parallel()
	s := newSigner(t)
	v := s.verifier(t, auth.ProfileCognito)
	log := &lockedBuffer{}
	v.LogTo(slog.New(slog.NewTextHandler(log, nil)))
	ask := s.asker(t, v)
	s.down.Store(true)
	for range 59 {
		unavailable(t, ask(s.key, "k1"))
		s.clock.Advance(time.Second)
	}
	require.Equal(t, 1, strings.Count(log.String(), "connection refused"), log.String())
	for range 2 {
		s.clock.Advance(time.Second)
		unavailable(t, ask(s.key, "k1"))
	}
	require.Equal(t, 2, strings.Count(log.String(), "connection refused"), log.String())
	s.down.Store(false)
	s.clock.Advance(time.Second)
	require.NoError(t, ask(s.key, "k1"))
	require.Contains(t, log.String(), "can be read again")
}

// lockedBuffer is what was logged.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
