package bench_test

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/gateway/rest"
	accountv1 "github.com/turumba/turumba/gen/turumba/account/v1"
	"github.com/turumba/turumba/kit/auth"
	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/grpcserver"
	"github.com/turumba/turumba/kit/telemetry"
)

// restCalls is how many calls one round makes, on all cores.
const restCalls = 60_000

const contactID = "0190a5c8-1111-7000-8000-000000000001"

// BenchmarkREST is a GET of one object: verified token, tenant, permission,
// validation, limits and measurements, over a store that does nothing, beside a
// bare transcoder without any of that.
func BenchmarkREST(b *testing.B) {
	store := &contactStore{}
	server, token := chain(b, store)
	ours, err := rest.NewHandler(b.Context(), rest.Config{
		Backends: rest.Backends{Account: server.Conn(""), Messaging: server.Conn("")}, Logger: telemetry.Discard(), Clock: clock.System(),
		Ready: func(context.Context) error { return nil },
	})
	require.NoError(b, err)
	bare := runtime.NewServeMux()
	require.NoError(b, accountv1.RegisterContactServiceHandlerServer(b.Context(), bare, store))
	compare(b, "calls", func() {}, func() int { return drive(b, ours, token) }, func() int { return drive(b, bare, "") })
}

// drive calls the handler without a network, which would be the same for both.
func drive(b *testing.B, h http.Handler, token string) int {
	b.Helper()
	const callers = 8
	var calling sync.WaitGroup
	for range callers {
		calling.Go(func() {
			for range restCalls / callers {
				r := httptest.NewRequestWithContext(b.Context(), http.MethodGet, "/v1/contacts/"+contactID, nil)
				if token != "" {
					r.Header.Set("Authorization", "Bearer "+token)
				}
				w := httptest.NewRecorder()
				h.ServeHTTP(w, r)
				if w.Code != http.StatusOK {
					b.Errorf("status %d: %s", w.Code, w.Body)
					return
				}
			}
		})
	}
	calling.Wait()
	return restCalls
}

// contactStore answers from memory.
type contactStore struct {
	accountv1.UnimplementedContactServiceServer
}

func (*contactStore) GetContact(context.Context, *accountv1.GetContactRequest) (*accountv1.GetContactResponse, error) {
	return &accountv1.GetContactResponse{Contact: &accountv1.Contact{
		Id: contactID, AccountId: contactID, Name: "Abebe Bikila", FirstName: "Abebe", LastName: "Bikila", Email: "abebe@example.org", Phone: "+251911000000", Tags: []string{"parent"},
	}}, nil
}

// Context implements auth.ContextSource.
func (*contactStore) Context(context.Context, auth.Claims) (auth.Caller, error) {
	return auth.Caller{UserID: contactID, Memberships: []auth.Membership{{AccountID: contactID, AccountStatus: "active", Permissions: []string{"contacts.read"}}}}, nil
}

// chain is a server with the whole chain, and a token that it accepts.
func chain(b *testing.B, store *contactStore) (*grpcserver.Server, string) {
	b.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(b, err)
	verifier, err := auth.NewVerifier(auth.VerifierConfig{
		Issuer: "http://bench", Profile: auth.ProfileCognito, Audience: []string{"bench"}, Clock: clock.System(),
		Keys: func(context.Context) ([]byte, error) { return jwks(&key.PublicKey) },
	})
	require.NoError(b, err)
	server, err := grpcserver.New(grpcserver.Config{
		Name: "account", Logger: telemetry.Discard(), Clock: clock.System(), Verifier: verifier, Registry: telemetry.NewRegistry(),
		Context: auth.NewCachedContext(store, clock.System()),
	})
	require.NoError(b, err)
	accountv1.RegisterContactServiceServer(server, store)
	return server, sign(b, key)
}

func jwks(key *rsa.PublicKey) ([]byte, error) {
	return json.Marshal(map[string]any{"keys": []any{map[string]string{
		"kty": "RSA", "use": "sig", "alg": "RS256", "kid": "k",
		"n": base64.RawURLEncoding.EncodeToString(key.N.Bytes()), "e": base64.RawURLEncoding.EncodeToString(big.NewInt(int64(key.E)).Bytes()),
	}}})
}

func sign(b *testing.B, key *rsa.PrivateKey) string {
	b.Helper()
	now := clock.System().Now()
	part := func(v any) string {
		raw, err := json.Marshal(v)
		require.NoError(b, err)
		return base64.RawURLEncoding.EncodeToString(raw)
	}
	text := part(map[string]string{"alg": "RS256", "kid": "k"}) + "." + part(map[string]any{
		"iss": "http://bench", "sub": "user", "client_id": "bench", "token_use": "access", "jti": "j",
		"iat": now.Unix(), "exp": now.Add(time.Hour).Unix(),
	})
	sum := sha256.Sum256([]byte(text))
	signature, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
	require.NoError(b, err)
	return fmt.Sprintf("%s.%s", text, base64.RawURLEncoding.EncodeToString(signature))
}
