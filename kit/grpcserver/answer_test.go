package grpcserver_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	accountv1 "github.com/turumba/turumba/gen/turumba/account/v1"
	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/grpcserver"
)

// page is an answer with n contacts of 10 KiB.
func page(n int) *accountv1.ListContactsResponse {
	resp := &accountv1.ListContactsResponse{}
	for i := range n {
		resp.Data = append(resp.Data, &accountv1.Contact{Id: someID, Name: strings.Repeat(string(rune('a'+i%26)), 10<<10)})
	}
	return resp
}

func (c *contacts) ListContacts(_ context.Context, req *accountv1.ListContactsRequest) (*accountv1.ListContactsResponse, error) {
	return page(int(req.GetLimit())), nil
}

// TestLongAnswers: answers of any length are whole, many at once, over each wire.
func TestLongAnswers(t *testing.T) {
	t.Parallel()
	w := start(t)
	for wire, conn := range w.outside {
		client := accountv1.NewContactServiceClient(conn)
		for _, n := range []int32{1, 3, 6, 7, 100, 390} { // 64 KiB is between 6 and 7
			g, ctx := errgroup.WithContext(as(t.Context(), "owner"))
			for range 8 {
				g.Go(func() error {
					resp, err := client.ListContacts(ctx, &accountv1.ListContactsRequest{Limit: n})
					if err == nil {
						require.True(t, proto.Equal(page(int(n)), resp), "%s %d", wire, n)
					}
					return err
				})
			}
			require.NoError(t, g.Wait(), "%s %d", wire, n)
		}
	}
}

// TestUnreadAnswers: who reads none of their answers keeps others waiting for a few seconds
// at most, then is cut.
func TestUnreadAnswers(t *testing.T) {
	t.Parallel()
	w := start(t)
	network, ok := w.outside["network"].(*grpcserver.Conn)
	require.True(t, ok)
	leave, stop := context.WithCancel(as(t.Context(), "owner"))
	defer stop()
	for range 8 { // with 4 MiB each, twice the share of one caller
		stream, err := network.NewStream(leave, &grpc.StreamDesc{ServerStreams: true}, accountv1.ContactService_ListContacts_FullMethodName)
		require.NoError(t, err)
		require.NoError(t, stream.SendMsg(&accountv1.ListContactsRequest{Limit: 390}))
		require.NoError(t, stream.CloseSend())
	}
	began := clock.System().Now()
	_, err := accountv1.NewContactServiceClient(network).ListContacts(as(t.Context(), "viewer"), &accountv1.ListContactsRequest{Limit: 390})
	require.NoError(t, err, "another caller finds room")
	require.Less(t, clock.System().Now().Sub(began), 10*time.Second)
	_, err = accountv1.NewContactServiceClient(network).ListContacts(as(t.Context(), "owner"), &accountv1.ListContactsRequest{Limit: 1})
	require.NoError(t, err, "small answers need none")
}
