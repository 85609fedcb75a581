package cognitotest

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/services/account/identity/cognito"
)

// Recorded is a user pool that plays written replies, for what the emulator lacks. It
// holds every request to what was written beside its reply.
type Recorded struct {
	// Settings are how the provider reaches it.
	Settings cognito.Settings
	// HTTP may reach it, and nothing else that is private.
	HTTP *http.Client

	signer jose.Signer
	jwks   []byte

	mu    sync.Mutex
	next  []exchange
	wrong []string
}

// exchange is one call to Cognito and its answer.
type exchange struct {
	Target  string          `json:"target"`
	Request json.RawMessage `json:"request"`
	// Fails is the code of the exception that answers instead of Reply.
	Fails string          `json:"fails"`
	Reply json.RawMessage `json:"reply"`
}

// NewRecorded starts a pool that knows no reply yet.
func NewRecorded(t *testing.T) *Recorded {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	r := &Recorded{}
	r.signer, err = jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: jose.JSONWebKey{Key: key, KeyID: "pool"}}, nil)
	require.NoError(t, err)
	r.jwks, err = json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: &key.PublicKey, KeyID: "pool", Use: "sig", Algorithm: "RS256"}}})
	require.NoError(t, err)
	server := httptest.NewServer(r)
	t.Cleanup(server.Close)
	r.Settings = Settings(server.URL, "us-east-1_Recorded", "web")
	r.HTTP = Client(t, server.URL)
	return r
}

// Play has the pool expect the exchanges of a file, in which ${name} stands for a
// value. All of them must have happened when the test ends.
func (r *Recorded) Play(t *testing.T, file string, vars map[string]string) {
	t.Helper()
	raw, err := os.ReadFile(file)
	require.NoError(t, err)
	var pairs []string
	for name, value := range vars {
		pairs = append(pairs, "${"+name+"}", value)
	}
	var list []exchange
	require.NoError(t, json.Unmarshal([]byte(strings.NewReplacer(pairs...).Replace(string(raw))), &list))
	r.mu.Lock()
	defer r.mu.Unlock()
	r.next = append(r.next, list...)
	t.Cleanup(func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		require.Empty(t, r.wrong)
		require.Empty(t, r.next, "calls that were not made")
	})
}

// ServeHTTP implements http.Handler.
func (r *Recorded) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if req.URL.Path == "/"+r.Settings.UserPoolID+"/.well-known/jwks.json" {
		_, _ = w.Write(r.jwks) // a client that went away asks again
		return
	}
	_, target, _ := strings.Cut(req.Header.Get("X-Amz-Target"), ".")
	body, err := io.ReadAll(req.Body)
	e, problem := r.take(target, body, req.Header.Get("Authorization"))
	if err != nil || problem != "" {
		http.Error(w, problem, http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	reply := e.Reply
	if e.Fails != "" {
		status := http.StatusBadRequest
		if e.Fails == "InternalErrorException" {
			status = http.StatusInternalServerError
		}
		w.WriteHeader(status)
		reply = json.RawMessage(`{"__type":"` + e.Fails + `","message":"as written"}`)
	} else if reply == nil {
		reply = json.RawMessage("{}")
	}
	_, _ = w.Write(reply) // a client that went away asks again
}

// take finds the next exchange and compares the request with it.
func (r *Recorded) take(target string, body []byte, authorization string) (e exchange, problem string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case len(r.next) == 0:
		problem = "nothing was expected, but " + target + " came: " + string(body)
	case r.next[0].Target != target:
		problem = r.next[0].Target + " was expected, but " + target + " came: " + string(body)
	case !sameJSON(r.next[0].Request, body):
		problem = target + ": expected " + string(r.next[0].Request) + ", but got " + string(body)
	case strings.HasPrefix(target, "Admin") != strings.HasPrefix(authorization, "AWS4-HMAC-SHA256 Credential=local/"):
		problem = target + ": is signed where it must not be, or the other way round"
	default:
		e, r.next = r.next[0], r.next[1:]
		return e, ""
	}
	r.wrong = append(r.wrong, problem)
	return e, problem
}

func sameJSON(a, b []byte) bool {
	var x, y any
	if json.Unmarshal(a, &x) != nil || json.Unmarshal(b, &y) != nil {
		return false
	}
	c, errC := json.Marshal(x) // keys in order
	d, errD := json.Marshal(y)
	return errC == nil && errD == nil && string(c) == string(d)
}

// Access is an access token as the pool gives it, for an hour from the login on.
func (r *Recorded) Access(t *testing.T, sub, session string, login, at time.Time) string {
	t.Helper()
	return r.sign(t, map[string]any{
		"sub": sub, "username": sub, "token_use": "access", "client_id": r.Settings.ClientID, "scope": "aws.cognito.signin.user.admin",
		"origin_jti": session, "jti": session + at.String(), "auth_time": login.Unix(), "iat": at.Unix(), "exp": at.Add(time.Hour).Unix(),
	})
}

// ID is an ID token as the pool gives it.
func (r *Recorded) ID(t *testing.T, sub, email string, verified bool, at time.Time) string {
	t.Helper()
	return r.sign(t, map[string]any{
		"sub": sub, "cognito:username": sub, "token_use": "id", "aud": r.Settings.ClientID, "email": email, "email_verified": verified,
		"auth_time": at.Unix(), "iat": at.Unix(), "exp": at.Add(time.Hour).Unix(),
	})
}

func (r *Recorded) sign(t *testing.T, claims map[string]any) string {
	t.Helper()
	claims["iss"] = r.Settings.Issuer()
	payload, err := json.Marshal(claims)
	require.NoError(t, err)
	jws, err := r.signer.Sign(payload)
	require.NoError(t, err)
	token, err := jws.CompactSerialize()
	require.NoError(t, err)
	return token
}
