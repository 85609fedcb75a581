package golden_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/turumba/turumba/e2e/world"
	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	messagingv1 "github.com/turumba/turumba/gen/turumba/messaging/v1"
	"github.com/turumba/turumba/kit/apierr"
)

// sender sends streams of messages on a channel that holds them, so that what is stored
// can be counted.
type sender struct {
	t        *testing.T
	w        *world.World
	client   messagingv1.MessageServiceClient
	disabled string
}

func newSender(t *testing.T) *sender {
	t.Helper()
	w := world.New(t)
	s := &sender{t: t, w: w, client: messagingv1.NewMessageServiceClient(w.Conns["turumba.messaging.v1"]), disabled: w.Vars["channel_id"]}
	_, err := messagingv1.NewChannelServiceClient(w.Conns["turumba.messaging.v1"]).
		DisableChannel(s.as(t.Context()), &messagingv1.DisableChannelRequest{ChannelId: s.disabled})
	require.NoError(t, err)
	return s
}

func (s *sender) as(ctx context.Context) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+s.w.Token("owner"))
}

type clientStream = grpc.ClientStreamingClient[messagingv1.SendMessagesRequest, messagingv1.SendMessagesResponse]

// open begins a stream in the owner's account.
func (s *sender) open(ctx context.Context) (clientStream, error) {
	stream, err := s.client.SendMessages(s.as(ctx))
	if err != nil {
		return nil, err
	}
	return stream, stream.Send(&messagingv1.SendMessagesRequest{Part: &messagingv1.SendMessagesRequest_Settings{
		Settings: &messagingv1.SendMessagesSettings{AccountId: s.w.Vars["account_id"]},
	}})
}

// items sends the items from first up to end, the foreign one on another
// organisation's channel.
func (s *sender) items(stream clientStream, set string, first, end, foreign int) error {
	for i := first; i < end; i++ {
		channelID := s.disabled
		if i == foreign {
			channelID = s.w.Vars["foreign_channel_id"]
		}
		err := stream.Send(&messagingv1.SendMessagesRequest{Part: &messagingv1.SendMessagesRequest_Item{Item: &messagingv1.SendMessagesItem{
			IdempotencyKey: fmt.Sprintf("%s-%d", set, i),
			Message:        &messagingv1.MessageInput{ChannelId: channelID, DeliveryAddress: fmt.Sprintf("%s-%d@stream.example", set, i), MessageBody: "Hello"},
		}}})
		if err != nil {
			return err
		}
	}
	return nil
}

// all sends n items in one stream and returns its answer.
func (s *sender) all(ctx context.Context, set string, n, foreign int) (*messagingv1.SendMessagesResponse, error) {
	stream, err := s.open(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.items(stream, set, 0, n, foreign); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return stream.CloseAndRecv()
}

// stored counts the messages of a set.
func (s *sender) stored(set string) int32 {
	s.t.Helper()
	now := s.w.Instance.Now()
	resp, err := s.client.ListMessages(s.as(s.t.Context()), &messagingv1.ListMessagesRequest{Limit: 1, Filter: []string{
		"delivery_address:contains:" + set + "-",
		"created_at:range:" + now.Add(-time.Hour).Format(time.RFC3339) + "," + now.Add(time.Hour).Format(time.RFC3339),
	}})
	require.NoError(s.t, err)
	return resp.GetMeta().GetTotal()
}

func idsOf(r *messagingv1.SendMessagesResponse) (ids []string) {
	for _, result := range r.GetResults() {
		ids = append(ids, result.GetMessageId())
	}
	return ids
}

// TestStreamsOfMessages breaks streams, repeats them, and sends the same one twice at
// once: every key makes one message, whoever sends it how often.
func TestStreamsOfMessages(t *testing.T) {
	t.Parallel()
	s := newSender(t)

	t.Run("broken and repeated", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		stream, err := s.open(ctx)
		require.NoError(t, err)
		require.NoError(t, s.items(stream, "broken", 0, 700, 5))
		require.Eventually(t, func() bool { return s.stored("broken") > 0 }, 30*time.Second, 20*time.Millisecond, "what comes is stored before the end")
		cancel()
		_, err = stream.CloseAndRecv()
		require.Error(t, err)

		whole, err := s.all(t.Context(), "broken", 1500, 5)
		require.NoError(t, err)
		require.Positive(t, whole.GetReplayedCount())
		require.Equal(t, int32(1499), whole.GetCreatedCount()+whole.GetReplayedCount())
		require.Equal(t, int32(1), whole.GetRejectedCount())
		require.Equal(t, "UNRESOLVED_REFERENCE", whole.GetResults()[5].GetCode())
		again, err := s.all(t.Context(), "broken", 1500, 5)
		require.NoError(t, err)
		require.Equal(t, int32(1499), again.GetReplayedCount())
		require.Equal(t, idsOf(whole), idsOf(again))
		require.Equal(t, int32(1499), s.stored("broken"))
	})

	t.Run("twice at once", func(t *testing.T) {
		var mu sync.Mutex
		var answers []*messagingv1.SendMessagesResponse
		var group errgroup.Group
		for range 4 {
			group.Go(func() error {
				resp, err := s.all(t.Context(), "twice", 1000, -1)
				mu.Lock()
				defer mu.Unlock()
				answers = append(answers, resp)
				return err
			})
		}
		require.NoError(t, group.Wait())
		created := int32(0)
		for _, a := range answers {
			created += a.GetCreatedCount()
			require.Equal(t, idsOf(answers[0]), idsOf(a))
		}
		require.Equal(t, int32(1000), created)
		require.Equal(t, int32(1000), s.stored("twice"))
	})

	t.Run("as many as a stream takes", func(t *testing.T) {
		const n = 100_000 // maxStreamItems
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		resp, err := s.all(t.Context(), "many", n, -1)
		require.NoError(t, err)
		runtime.GC()
		runtime.ReadMemStats(&after)
		require.Equal(t, int32(n), resp.GetCreatedCount())
		require.Equal(t, n, len(resp.GetResults())+int(resp.GetOmittedCount()))
		require.Positive(t, resp.GetOmittedCount(), "the answer is bounded")
		require.Less(t, int64(after.HeapAlloc)-int64(before.HeapAlloc), int64(64<<20), "a stream keeps no more than its answer")

		_, err = s.all(t.Context(), "many", n+1, -1)
		require.Equal(t, errorv1.Reason_REASON_PAYLOAD_TOO_LARGE, apierr.From(err).Reason)
	})
}
