package grpcserver_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	accountv1 "github.com/turumba/turumba/gen/turumba/account/v1"
	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/auth"
	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/grpcserver"
	"github.com/turumba/turumba/kit/idempotency"
	"github.com/turumba/turumba/kit/telemetry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	accountA = "0190a5c8-1111-7000-8000-00000000000a"
	someID   = "0190a5c8-1111-7000-8000-000000000001"
	token    = "0123456789abcdef0123456789abcdef"
)

// tokens verifies "owner", "viewer" and "stranger".
type tokens struct{}

func (tokens) Verify(_ context.Context, raw string) (auth.Claims, error) {
	switch raw {
	case "owner", "viewer", "stranger", "outage":
		return auth.Claims{Subject: raw, Expiry: clock.System().Now().Add(time.Hour)}, nil
	}
	return auth.Claims{}, apierr.New(errorv1.Reason_REASON_UNAUTHENTICATED, "the token is missing or not valid")
}

type people struct{}

func (people) Context(_ context.Context, c auth.Claims) (auth.Caller, error) {
	switch c.Subject {
	case "owner":
		return auth.Caller{UserID: "u1", Memberships: []auth.Membership{{AccountID: accountA, Permissions: []string{"contacts.delete", "contacts.read", "contacts.write"}}}}, nil
	case "viewer":
		return auth.Caller{UserID: "u2", Memberships: []auth.Membership{{AccountID: accountA, Permissions: []string{"contacts.read"}}}}, nil
	case "outage":
		return auth.Caller{}, errors.New("connection refused")
	}
	return auth.Caller{}, apierr.NotFound("user")
}

// contacts is the handler behind the chain.
type contacts struct {
	accountv1.UnimplementedContactServiceServer
	accountv1.UnimplementedContextServiceServer
	accountv1.UnimplementedInternalContextServiceServer
	accountv1.UnimplementedRecipientServiceServer
	calls atomic.Int32
	md    atomic.Pointer[metadata.MD]
}

func (c *contacts) GetContact(ctx context.Context, req *accountv1.GetContactRequest) (*accountv1.GetContactResponse, error) {
	c.calls.Add(1)
	md, _ := metadata.FromIncomingContext(ctx)
	c.md.Store(&md)
	switch scope := auth.ScopeFrom(ctx); {
	case len(scope) != 1 || scope[0] != accountA:
		return nil, errors.New("the scope is not the caller's accounts")
	case strings.HasSuffix(req.GetContactId(), "e"):
		return nil, errors.New("secret detail of the database")
	case strings.HasSuffix(req.GetContactId(), "f"):
		panic("boom")
	case strings.HasSuffix(req.GetContactId(), "d"):
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return &accountv1.GetContactResponse{Contact: &accountv1.Contact{Id: req.GetContactId()}}, nil
}

type replay struct{ response *anypb.Any }

func (replay) Error() string                { return "answered before" }
func (r replay) ReplayResponse() *anypb.Any { return r.response }

func (c *contacts) CreateContact(ctx context.Context, _ *accountv1.CreateContactRequest) (*accountv1.CreateContactResponse, error) {
	if r, ok := idempotency.From(ctx); ok && r.Key == "used" {
		stored, err := anypb.New(&accountv1.CreateContactResponse{Contact: &accountv1.Contact{Id: "first"}})
		return nil, errors.Join(err, replay{stored})
	}
	return &accountv1.CreateContactResponse{Contact: &accountv1.Contact{Id: "new"}}, nil
}

func (c *contacts) UpdateContact(context.Context, *accountv1.UpdateContactRequest) (*accountv1.UpdateContactResponse, error) {
	return &accountv1.UpdateContactResponse{}, nil
}

func (c *contacts) GetContext(ctx context.Context, _ *accountv1.GetContextRequest) (*accountv1.GetContextResponse, error) {
	return &accountv1.GetContextResponse{UserId: auth.From(ctx).UserID}, nil
}

func (c *contacts) ResolveContext(ctx context.Context, _ *accountv1.ResolveContextRequest) (*accountv1.ResolveContextResponse, error) {
	return &accountv1.ResolveContextResponse{UserId: auth.From(ctx).Service}, nil
}

func (c *contacts) StreamRecipients(req *accountv1.StreamRecipientsRequest, ss grpc.ServerStreamingServer[accountv1.StreamRecipientsResponse]) error {
	for range req.GetPageSize() {
		if err := ss.Send(&accountv1.StreamRecipientsResponse{Recipients: []*accountv1.Recipient{{ContactId: someID}}}); err != nil {
			return err
		}
	}
	if req.GetCursor() != "" { // the caller goes away
		<-ss.Context().Done()
		return ss.Context().Err()
	}
	return apierr.NotFound("contact group")
}

// world serves the same handler over the network and in the process.
type world struct {
	handler *contacts
	// outside and worker are connections by wire: a user's, and a service's.
	outside, worker map[string]grpc.ClientConnInterface
}

func start(t *testing.T) world {
	t.Helper()
	h := &contacts{}
	s, err := grpcserver.New(grpcserver.Config{
		Name: "test", Logger: slog.New(slog.DiscardHandler), Clock: clock.System(), Verifier: tokens{}, Context: people{}, Mesh: grpcserver.Mesh{ServiceToken: token},
	})
	require.NoError(t, err)
	accountv1.RegisterContactServiceServer(s, h)
	accountv1.RegisterContextServiceServer(s, h)
	accountv1.RegisterInternalContextServiceServer(s, h)
	accountv1.RegisterRecipientServiceServer(s, h)
	require.NoError(t, s.Check())
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	served := make(chan error, 1)
	go func() { served <- grpcserver.Serve(ctx, l, s) }()
	dial := func(service string) *grpcserver.Conn {
		conn, err := grpcserver.Mesh{ServiceToken: token}.Dial("passthrough:///"+l.Addr().String(), service, clock.System())
		require.NoError(t, err)
		return conn
	}
	outside, worker := dial(""), dial("worker")
	t.Cleanup(func() {
		require.NoError(t, outside.Close())
		require.NoError(t, worker.Close())
		cancel()
		require.NoError(t, <-served)
	})
	return world{
		handler: h,
		outside: map[string]grpc.ClientConnInterface{"network": outside, "inproc": s.Conn(""), "edge": s.EdgeConn()},
		worker:  map[string]grpc.ClientConnInterface{"network": worker, "inproc": s.Conn("worker"), "edge": s.ReaderConn("worker")},
	}
}

func as(ctx context.Context, who string, md ...string) context.Context {
	if who != "" {
		md = append(md, "authorization", "Bearer "+who)
	}
	return metadata.AppendToOutgoingContext(ctx, md...)
}

// TestChain asks the same of both wires: who gets in, and with which error.
func TestChain(t *testing.T) {
	t.Parallel()
	w := start(t)
	cases := []struct {
		name, who, id string
		reason        errorv1.Reason
		code          codes.Code
		handled       bool
	}{
		{"good", "owner", someID, 0, codes.OK, true},
		{"no token", "", someID, errorv1.Reason_REASON_UNAUTHENTICATED, codes.Unauthenticated, false},
		{"bad token", "forged", someID, errorv1.Reason_REASON_UNAUTHENTICATED, codes.Unauthenticated, false},
		{"no permission anywhere", "stranger", someID, errorv1.Reason_REASON_PERMISSION_DENIED, codes.PermissionDenied, false},
		{"the look-up fails: closed", "outage", someID, errorv1.Reason_REASON_UNAVAILABLE, codes.Unavailable, false},
		{"denied before validated", "stranger", "no uuid", errorv1.Reason_REASON_PERMISSION_DENIED, codes.PermissionDenied, false},
		{"invalid", "owner", "no uuid", errorv1.Reason_REASON_VALIDATION_FAILED, codes.InvalidArgument, false},
		{"internal error", "owner", "0190a5c8-1111-7000-8000-00000000000e", errorv1.Reason_REASON_INTERNAL, codes.Internal, true},
		{"panic", "owner", "0190a5c8-1111-7000-8000-00000000000f", errorv1.Reason_REASON_INTERNAL, codes.Internal, true},
	}
	for wire, conn := range w.outside {
		client := accountv1.NewContactServiceClient(conn)
		for _, c := range cases {
			before := w.handler.calls.Load()
			var header metadata.MD
			resp, err := client.GetContact(as(t.Context(), c.who, "x-request-id", "req-1"), &accountv1.GetContactRequest{ContactId: c.id}, grpc.Header(&header))
			require.Equal(t, c.code, status.Code(err), "%s %s: %v", wire, c.name, err)
			require.Equal(t, c.handled, w.handler.calls.Load() > before, "%s %s", wire, c.name)
			require.Equal(t, []string{"req-1"}, header.Get("x-request-id"), "%s %s", wire, c.name)
			if err == nil {
				require.Equal(t, c.id, resp.GetContact().GetId())
				continue
			}
			e := apierr.From(err)
			require.Equal(t, c.reason, e.Reason, "%s %s", wire, c.name)
			require.NotContains(t, err.Error(), "secret", "%s %s", wire, c.name)
			require.NotContains(t, err.Error(), "boom", "%s %s", wire, c.name)
			if c.reason == errorv1.Reason_REASON_VALIDATION_FAILED {
				require.Equal(t, "contact_id", e.Fields[0].Field)
			}
		}
	}
}

func TestSpoofedIdentityIsRemoved(t *testing.T) {
	t.Parallel()
	w := start(t)
	for wire, conn := range w.outside {
		_, err := accountv1.NewContactServiceClient(conn).GetContact(
			as(t.Context(), "owner", "x-account-ids", "b", "x-user-id", "root", "grpc-metadata-x-role-ids", "r", "x-request-id", "not a fair id\n"),
			&accountv1.GetContactRequest{ContactId: someID})
		if wire == "network" && status.Code(err) == codes.Internal {
			continue // the transport itself refuses such a header
		}
		require.NoError(t, err, wire)
		for _, key := range []string{"x-account-ids", "x-user-id", "grpc-metadata-x-role-ids"} {
			require.Empty(t, w.handler.md.Load().Get(key), "%s %s", wire, key)
		}
	}
}

func TestInternalRPCs(t *testing.T) {
	t.Parallel()
	w := start(t)
	req := &accountv1.ResolveContextRequest{Issuer: "i", Subject: "s"}
	for wire := range w.outside {
		resp, err := accountv1.NewInternalContextServiceClient(w.worker[wire]).ResolveContext(t.Context(), req)
		require.NoError(t, err, wire)
		require.Equal(t, "worker", resp.GetUserId())
		_, err = accountv1.NewInternalContextServiceClient(w.outside[wire]).ResolveContext(as(t.Context(), "owner"), req)
		require.Equal(t, codes.Unauthenticated, status.Code(err), "%s: a user token opens no internal RPC", wire)
		_, err = accountv1.NewInternalContextServiceClient(w.outside[wire]).ResolveContext(as(t.Context(), "", "x-service-auth", "worker.1.abc"), req)
		require.Equal(t, codes.Unauthenticated, status.Code(err), wire)
	}
}

func TestAuthenticatedWithoutUser(t *testing.T) {
	t.Parallel()
	w := start(t)
	for wire, conn := range w.outside {
		resp, err := accountv1.NewContextServiceClient(conn).GetContext(as(t.Context(), "stranger"), &accountv1.GetContextRequest{})
		require.NoError(t, err, wire)
		require.Empty(t, resp.GetUserId())
	}
}

func TestPartialUpdate(t *testing.T) {
	t.Parallel()
	w := start(t)
	for wire, conn := range w.outside {
		update := func(c *accountv1.ContactUpdate, paths ...string) []string {
			_, err := accountv1.NewContactServiceClient(conn).UpdateContact(as(t.Context(), "owner"),
				&accountv1.UpdateContactRequest{ContactId: someID, Contact: c, UpdateMask: &fieldmaskpb.FieldMask{Paths: paths}})
			if err == nil {
				return nil
			}
			var fields []string
			for _, f := range apierr.From(err).Fields {
				fields = append(fields, f.Field)
			}
			return fields
		}
		bad := &accountv1.ContactUpdate{Language: strings.Repeat("x", 40), PreferredChannelType: "pigeon"}
		require.Empty(t, update(bad, "first_name"), "%s: only the mask is validated", wire)
		require.Equal(t, []string{"language"}, update(bad, "language"), wire)
		require.ElementsMatch(t, []string{"language", "preferred_channel_type"}, update(bad, "language", "preferred_channel_type"), wire)
		require.Equal(t, []string{"account_id"}, update(bad, "account_id"), wire)
		require.Equal(t, []string{"update_mask"}, update(bad), wire)
		require.Empty(t, update(bad, "metadata.city"), wire)
	}
}

func TestIdempotencyKey(t *testing.T) {
	t.Parallel()
	w := start(t)
	for wire, conn := range w.outside {
		create := func(keys ...string) (*accountv1.CreateContactResponse, metadata.MD, error) {
			var md []string
			for _, k := range keys {
				md = append(md, "idempotency-key", k)
			}
			var header metadata.MD
			resp, err := accountv1.NewContactServiceClient(conn).CreateContact(as(t.Context(), "owner", md...), &accountv1.CreateContactRequest{}, grpc.Header(&header))
			return resp, header, err
		}
		resp, header, err := create("fresh")
		require.NoError(t, err, wire)
		require.Equal(t, "new", resp.GetContact().GetId())
		require.Empty(t, header.Get("idempotency-replayed"))
		resp, header, err = create("used")
		require.NoError(t, err, wire)
		require.Equal(t, "first", resp.GetContact().GetId())
		require.Equal(t, []string{"true"}, header.Get("idempotency-replayed"))
		for _, keys := range [][]string{{strings.Repeat("k", 256)}, {"with space"}, {"a", "b"}} {
			_, _, err = create(keys...)
			require.True(t, apierr.HasReason(err, errorv1.Reason_REASON_INVALID_HEADER), "%s %v: %v", wire, keys, err)
		}
	}
}

func TestDeadline(t *testing.T) {
	t.Parallel()
	w := start(t)
	for wire, conn := range w.outside {
		ctx, cancel := context.WithTimeout(as(t.Context(), "owner"), 100*time.Millisecond)
		_, err := accountv1.NewContactServiceClient(conn).GetContact(ctx, &accountv1.GetContactRequest{ContactId: "0190a5c8-1111-7000-8000-00000000000d"})
		cancel()
		require.Equal(t, codes.DeadlineExceeded, status.Code(err), "%s: %v", wire, err)
	}
}

func TestStreams(t *testing.T) {
	t.Parallel()
	w := start(t)
	req := &accountv1.StreamRecipientsRequest{AccountId: accountA, ContactGroupIds: []string{someID}, PageSize: 3}
	for wire := range w.worker {
		stream, err := accountv1.NewRecipientServiceClient(w.worker[wire]).StreamRecipients(t.Context(), req)
		require.NoError(t, err, wire)
		for range 3 {
			resp, err := stream.Recv()
			require.NoError(t, err, wire)
			require.Len(t, resp.GetRecipients(), 1)
		}
		_, err = stream.Recv()
		require.Equal(t, codes.NotFound, status.Code(err), "%s: %v", wire, err)

		ctx, cancel := context.WithCancel(t.Context())
		endless := &accountv1.StreamRecipientsRequest{AccountId: accountA, ContactGroupIds: []string{someID}, PageSize: 3, Cursor: someID}
		stream, err = accountv1.NewRecipientServiceClient(w.worker[wire]).StreamRecipients(ctx, endless)
		require.NoError(t, err, wire)
		_, err = stream.Recv()
		require.NoError(t, err, wire)
		cancel()
		for err == nil {
			_, err = stream.Recv()
		}
		require.Equal(t, codes.Canceled, status.Code(err), "%s: %v", wire, err)

		stream, err = accountv1.NewRecipientServiceClient(w.outside[wire]).StreamRecipients(as(t.Context(), "owner"), req)
		if err == nil {
			_, err = stream.Recv()
		}
		require.Equal(t, codes.Unauthenticated, status.Code(err), wire)

		stream, err = accountv1.NewRecipientServiceClient(w.worker[wire]).StreamRecipients(t.Context(), &accountv1.StreamRecipientsRequest{AccountId: "x"})
		if err == nil {
			_, err = stream.Recv()
		}
		require.Equal(t, codes.Unavailable, status.Code(err), "%s: what a service asks wrongly is nobody else's fault", wire)
	}
}

func TestUnknownMethodIsDenied(t *testing.T) {
	t.Parallel()
	w := start(t)
	for wire, conn := range w.outside {
		for _, method := range []string{"/turumba.account.v1.ContactService/Nothing", "/nothing.Service/Get", "turumba.account.v1.ContactService/GetContact/", "/turumba.account.v1.ContactService"} {
			err := conn.Invoke(as(t.Context(), "owner"), method, &accountv1.GetContactRequest{ContactId: someID}, &accountv1.GetContactResponse{})
			require.Contains(t, []codes.Code{codes.Unimplemented, codes.Internal}, status.Code(err), "%s %s: %v", wire, method, err)
		}
	}
}

func BenchmarkUnary(b *testing.B) {
	h := &contacts{}
	s, err := grpcserver.New(grpcserver.Config{Name: "bench", Logger: telemetry.Discard(), Clock: clock.System(), Verifier: tokens{}, Context: people{}})
	require.NoError(b, err)
	accountv1.RegisterContactServiceServer(s, h)
	client := accountv1.NewContactServiceClient(s.Conn(""))
	ctx := as(b.Context(), "owner")
	req := &accountv1.GetContactRequest{ContactId: someID}
	for b.Loop() {
		if _, err := client.GetContact(ctx, req); err != nil {
			b.Fatal(err)
		}
	}
}
