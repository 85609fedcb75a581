package grpcserver_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/structpb"

	accountv1 "github.com/turumba/turumba/gen/turumba/account/v1"
	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/grpcserver"
)

// TestNothingIsReadBeforeIdentity opens calls and sends no message: who is refused is
// refused without one. gzip is registered here, as in every binary.
func TestNothingIsReadBeforeIdentity(t *testing.T) {
	t.Parallel()
	w := start(t)
	conn := w.outside["network"]
	open := func(who, method string, opts ...grpc.CallOption) error {
		ctx, cancel := context.WithTimeout(as(t.Context(), who), 3*time.Second)
		defer cancel()
		stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true}, method, opts...)
		require.NoError(t, err)
		return stream.RecvMsg(&emptypb.Empty{})
	}
	for who, reason := range map[string]errorv1.Reason{
		"": errorv1.Reason_REASON_UNAUTHENTICATED, "nobody": errorv1.Reason_REASON_UNAUTHENTICATED,
		"viewer": errorv1.Reason_REASON_PERMISSION_DENIED, "outage": errorv1.Reason_REASON_UNAVAILABLE,
		"owner": errorv1.Reason_REASON_DEADLINE_EXCEEDED, // only this one was waited for
	} {
		err := open(who, accountv1.ContactService_BatchCreateContacts_FullMethodName)
		require.Equal(t, reason, apierr.From(err).Reason, "%q: %v", who, err)
	}
	err := open("owner", accountv1.ContactService_GetContact_FullMethodName, grpc.UseCompressor(gzip.Name))
	require.Equal(t, codes.Unimplemented, status.Code(err), "%v", err)
}

// TestMessagesAreBounded: what is too large for its RPC is refused by its length, and
// what is too many before it is decoded.
func TestMessagesAreBounded(t *testing.T) {
	t.Parallel()
	w := start(t)
	contacts := accountv1.NewContactServiceClient(w.outside["network"])
	ctx := as(t.Context(), "owner")
	for name, c := range map[string]struct {
		call   func() error
		reason errorv1.Reason
		detail string
	}{
		"too large for a GetContact": {func() error {
			_, err := contacts.GetContact(ctx, &accountv1.GetContactRequest{ContactId: strings.Repeat("x", 64<<10)})
			return err
		}, errorv1.Reason_REASON_PAYLOAD_TOO_LARGE, "limit"},
		"too many for a batch": {func() error {
			_, err := contacts.BatchCreateContacts(ctx, &accountv1.BatchCreateContactsRequest{Contacts: make([]*accountv1.ContactInput, 5000)})
			return err
		}, errorv1.Reason_REASON_VALIDATION_FAILED, "contacts"},
		"compressed": {func() error {
			_, err := contacts.GetContact(ctx, &accountv1.GetContactRequest{ContactId: someID}, grpc.UseCompressor(gzip.Name))
			return err
		}, errorv1.Reason_REASON_NOT_IMPLEMENTED, "compressed"},
		"headers of 20 KiB": {func() error {
			_, err := contacts.GetContact(as(t.Context(), "owner", "x-long", strings.Repeat("x", 20<<10)), &accountv1.GetContactRequest{ContactId: someID})
			return err
		}, errorv1.Reason_REASON_INTERNAL, "header list"},
	} {
		err := c.call()
		e := apierr.From(err)
		require.Equal(t, c.reason, e.Reason, "%s: %v", name, err)
		said := err.Error()
		for _, f := range e.Fields {
			said += f.Field
		}
		require.Contains(t, said, c.detail, name)
	}
	require.Zero(t, w.handler.calls.Load())
}

// TestFreeDataIsBounded on both wires, by type.
func TestFreeDataIsBounded(t *testing.T) {
	t.Parallel()
	w := start(t)
	deep := &structpb.Struct{}
	for range 40 {
		deep = &structpb.Struct{Fields: map[string]*structpb.Value{"x": structpb.NewStructValue(deep)}}
	}
	for wire, conn := range w.outside {
		contacts := accountv1.NewContactServiceClient(conn)
		_, err := contacts.CreateContact(as(t.Context(), "owner"), &accountv1.CreateContactRequest{Name: "x", Metadata: deep})
		e := apierr.From(err)
		require.Equal(t, errorv1.Reason_REASON_VALIDATION_FAILED, e.Reason, "%s: %v", wire, err)
		require.Equal(t, "metadata", e.Fields[0].Field)
	}
}

// TestAdmit asks on both wires, for calls and for streams; nothing is handled.
func TestAdmit(t *testing.T) {
	t.Parallel()
	w := start(t)
	for wire, conn := range w.outside {
		for who, reason := range map[string]errorv1.Reason{
			"owner": 0, "": errorv1.Reason_REASON_UNAUTHENTICATED, "nobody": errorv1.Reason_REASON_UNAUTHENTICATED, "viewer": errorv1.Reason_REASON_PERMISSION_DENIED,
		} {
			err := grpcserver.Admit(as(t.Context(), who), conn, accountv1.ContactService_DeleteContact_FullMethodName)
			if reason == 0 {
				require.NoError(t, err, wire)
				continue
			}
			require.Equal(t, reason, apierr.From(err).Reason, "%s %q: %v", wire, who, err)
		}
		err := grpcserver.Admit(as(t.Context(), "owner"), conn, accountv1.RecipientService_StreamRecipients_FullMethodName)
		require.Equal(t, errorv1.Reason_REASON_UNAUTHENTICATED, apierr.From(err).Reason, "a stream of services: %s %v", wire, err)
		err = grpcserver.Admit(as(t.Context(), "owner"), conn, "/turumba.account.v1.ContactService/Nothing")
		require.Equal(t, errorv1.Reason_REASON_NOT_IMPLEMENTED, apierr.From(err).Reason, "%s %v", wire, err)
	}
	for wire, conn := range w.worker {
		err := grpcserver.Admit(t.Context(), conn, accountv1.RecipientService_StreamRecipients_FullMethodName)
		require.NoError(t, err, wire)
	}
	require.Zero(t, w.handler.calls.Load())
}

// TestHealthHasNoStreams: anybody could leave them open.
func TestHealthHasNoStreams(t *testing.T) {
	t.Parallel()
	conn := start(t).outside["network"]
	health := grpc_health_v1.NewHealthClient(conn)
	resp, err := health.Check(t.Context(), &grpc_health_v1.HealthCheckRequest{})
	require.NoError(t, err)
	require.Equal(t, grpc_health_v1.HealthCheckResponse_SERVING, resp.GetStatus())
	watch, err := health.Watch(t.Context(), &grpc_health_v1.HealthCheckRequest{})
	require.NoError(t, err)
	_, err = watch.Recv()
	require.Equal(t, codes.Unimplemented, status.Code(err))
	_, err = health.Check(t.Context(), &grpc_health_v1.HealthCheckRequest{Service: strings.Repeat("x", 8<<10)})
	require.Equal(t, codes.ResourceExhausted, status.Code(err))
}

// TestHealthByService: who asks for a service is told of it, and that there is no other.
func TestHealthByService(t *testing.T) {
	t.Parallel()
	health := grpc_health_v1.NewHealthClient(start(t).outside["network"])
	resp, err := health.Check(t.Context(), &grpc_health_v1.HealthCheckRequest{Service: accountv1.ContactService_ServiceDesc.ServiceName})
	require.NoError(t, err)
	require.Equal(t, grpc_health_v1.HealthCheckResponse_SERVING, resp.GetStatus())
	_, err = health.Check(t.Context(), &grpc_health_v1.HealthCheckRequest{Service: "turumba.account.v1.NothingService"})
	require.Equal(t, codes.NotFound, status.Code(err))
}
