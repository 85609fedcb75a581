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

const (
	// restCalls is how many calls one turn makes.
	restCalls = 800

	contactID   = "0190a5c8-1111-7000-8000-000000000001"
	contactPath = "/v1/contacts/" + contactID
)

// BenchmarkREST is a GET of one object: verified token, tenant, permission,
// validation, limits, traces and measurements, over a store that does nothing,
// beside a bare transcoder without any of that. "wire" is the whole gateway and the
// bare one behind net/http, with the same clients; "handler" leaves out the network,
// which is the same for both.
func BenchmarkREST(b *testing.B) {
	store := &contactStore{}
	server, token := chain(b, func(s *grpcserver.Server) { accountv1.RegisterContactServiceServer(s, store) }, "contacts.read")
	bare := runtime.NewServeMux()
	require.NoError(b, accountv1.RegisterContactServiceHandlerServer(b.Context(), bare, store))
	b.Run("wire", func(b *testing.B) {
		inTurns(b, restCalls, repeat(b, gateway(b, server), get(contactPath, token)), repeat(b, plain(b, bare), get(contactPath, "")))
	})
	b.Run("handler", func(b *testing.B) {
		ours, err := rest.NewHandler(b.Context(), rest.Config{
			Backends: rest.Backends{Account: server.EdgeConn(), Messaging: server.EdgeConn()}, Logger: telemetry.Discard(), Clock: clock.System(),
			Registry: telemetry.NewRegistry(), Tracing: tracing("gateway"), Ready: func(context.Context) error { return nil },
		})
		require.NoError(b, err)
		inTurns(b, restCalls, drive(b, ours, token), drive(b, bare, ""))
	})
}

// drive returns a load on the handler itself.
func drive(b *testing.B, h http.Handler, token string) func(calls int) {
	b.Helper()
	return func(calls int) {
		var calling sync.WaitGroup
		for range clients {
			calling.Go(func() {
				for range calls / clients {
					r := httptest.NewRequestWithContext(b.Context(), http.MethodGet, contactPath, nil)
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
	}
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

// member is somebody with these permissions in one account.
type member []string

// Context implements auth.ContextSource.
func (m member) Context(context.Context, auth.Claims) (auth.Caller, error) {
	return auth.Caller{UserID: contactID, Memberships: []auth.Membership{{AccountID: contactID, AccountStatus: "active", Permissions: m}}}, nil
}

// chain is a server with the whole chain and these services, and a token that it
// accepts.
func chain(b *testing.B, register func(*grpcserver.Server), permissions ...string) (*grpcserver.Server, string) {
	b.Helper()
	verifier, token := verifier(b)
	server, err := grpcserver.New(grpcserver.Config{
		Name: "bench", Logger: telemetry.Discard(), Clock: clock.System(), Verifier: verifier, Registry: telemetry.NewRegistry(), Tracing: tracing("bench"),
		Context: auth.NewCachedContext(member(permissions), clock.System()),
	})
	require.NoError(b, err)
	register(server)
	return server, token
}

// verifier verifies the tokens of an issuer, of which it gives one.
func verifier(b *testing.B) (*auth.Verifier, string) {
	b.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(b, err)
	v, err := auth.NewVerifier(auth.VerifierConfig{
		Issuer: "http://bench", Profile: auth.ProfileCognito, Audience: []string{"bench"}, Clock: clock.System(),
		Keys: func(context.Context) ([]byte, error) { return jwks(&key.PublicKey) },
	})
	require.NoError(b, err)
	return v, sign(b, key)
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
