package grpcserver_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	accountv1 "github.com/turumba/turumba/gen/turumba/account/v1"
	"github.com/turumba/turumba/kit/auth"
	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/grpcserver"
)

// shortTokens are all the owner's and expire at a time.
type shortTokens struct{ expiry time.Time }

func (s shortTokens) Verify(context.Context, string) (auth.Claims, error) {
	return auth.Claims{Subject: "owner", Expiry: s.expiry}, nil
}

// exporters may all export.
type exporters struct{}

func (exporters) Context(_ context.Context, c auth.Claims) (auth.Caller, error) {
	return auth.Caller{UserID: c.Subject, Memberships: []auth.Membership{{AccountID: accountA, Permissions: []string{"contacts.export"}}}}, nil
}

// waiting is an export that tells that it began and then waits.
type waiting struct{ contacts }

func (*waiting) ExportContacts(_ *accountv1.ExportContactsRequest, ss grpc.ServerStreamingServer[accountv1.ExportContactsResponse]) error {
	if err := ss.Send(&accountv1.ExportContactsResponse{}); err != nil {
		return err
	}
	<-ss.Context().Done()
	return ss.Context().Err()
}

// TestStreamsEnd is J30: a stream does not outlive its token by more than a
// minute, nor silence.
func TestStreamsEnd(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		left, at time.Duration
		want     codes.Code
	}{
		"the token expired":           {left: -30 * time.Second, at: 30 * time.Second, want: codes.Unauthenticated},
		"nothing was sent either way": {left: time.Hour, at: time.Minute, want: codes.DeadlineExceeded},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			now := clock.NewFake(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
			s, err := grpcserver.New(grpcserver.Config{
				Name: "test", Logger: slog.New(slog.DiscardHandler), Clock: now, Verifier: shortTokens{now.Now().Add(c.left)}, Context: auth.NewCachedContext(exporters{}, now),
			})
			require.NoError(t, err)
			accountv1.RegisterContactServiceServer(s, &waiting{})
			stream, err := accountv1.NewContactServiceClient(s.Conn("")).ExportContacts(as(t.Context(), "owner"), &accountv1.ExportContactsRequest{})
			require.NoError(t, err)
			_, err = stream.Recv()
			require.NoError(t, err)
			require.NoError(t, now.WaitForTimers(t.Context(), 1))
			now.Advance(c.at)
			_, err = stream.Recv()
			require.Equal(t, c.want, status.Code(err), "%v", err)
		})
	}
}

// TestMessagesKeepStreamsOpen: a stream by which messages come is not idle, however long
// its answer takes.
func TestMessagesKeepStreamsOpen(t *testing.T) {
	t.Parallel()
	now, got := clock.NewFake(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)), make(chan struct{})
	s, err := grpcserver.New(grpcserver.Config{
		Name: "test", Logger: slog.New(slog.DiscardHandler), Clock: now, Verifier: shortTokens{now.Now().Add(time.Hour)}, Context: auth.NewCachedContext(importers{}, now),
		Mesh: grpcserver.Mesh{ServiceToken: token},
	})
	require.NoError(t, err)
	accountv1.RegisterContactImportServiceServer(s, &importing{got: got})
	l := listen(t)
	serve(t, l, s)
	network, err := grpcserver.Mesh{}.Dial("passthrough:///"+l.Addr().String(), "", clock.System())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, network.Close()) })
	for name, conn := range map[string]grpc.ClientConnInterface{"over the network": network, "in process": s.Conn("")} {
		stream, err := accountv1.NewContactImportServiceClient(conn).ImportContacts(as(t.Context(), "owner"))
		require.NoError(t, err, name)
		for range 5 {
			require.NoError(t, stream.Send(&accountv1.ImportContactsRequest{Part: &accountv1.ImportContactsRequest_Data{Data: []byte("a")}}), name)
			<-got
			now.Advance(50 * time.Second)
		}
		_, err = stream.CloseAndRecv()
		require.NoError(t, err, name)
	}
}

// importers may all import.
type importers struct{}

func (importers) Context(_ context.Context, c auth.Claims) (auth.Caller, error) {
	return auth.Caller{UserID: c.Subject, Memberships: []auth.Membership{{AccountID: accountA, Permissions: []string{"contacts.import"}}}}, nil
}

// importing tells of each message of an import.
type importing struct {
	accountv1.UnimplementedContactImportServiceServer
	got chan struct{}
}

func (i *importing) ImportContacts(ss grpc.ClientStreamingServer[accountv1.ImportContactsRequest, accountv1.ImportContactsResponse]) error {
	for {
		if _, err := ss.Recv(); errors.Is(err, io.EOF) {
			return ss.SendAndClose(&accountv1.ImportContactsResponse{})
		} else if err != nil {
			return err
		}
		i.got <- struct{}{}
	}
}

// TestNextLook: all streams of a caller look at one time, and those of many callers at all
// times.
func TestNextLook(t *testing.T) {
	const every, callers = 15 * time.Second, 3000
	now := time.Unix(1_700_000_000, 0)
	third := map[time.Duration]int{}
	for i := range callers {
		user := strconv.Itoa(i)
		next := grpcserver.NextLook(now, user)
		require.Positive(t, next.Sub(now))
		require.LessOrEqual(t, next.Sub(now), every)
		require.Equal(t, next, grpcserver.NextLook(next.Add(-time.Nanosecond), user), "one opened later looks at the same time")
		require.Equal(t, next.Add(every), grpcserver.NextLook(next, user))
		third[next.Sub(now)*3/every]++
	}
	for i := range 3 {
		require.Greater(t, third[time.Duration(i)], callers/4, "of the times of a third of the period")
	}
}
