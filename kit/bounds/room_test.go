package bounds_test

import (
	"context"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	accountv1 "github.com/turumba/turumba/gen/turumba/account/v1"
	"github.com/turumba/turumba/kit/bounds"
)

// TestRoomOfOne: a caller with requests without end has half of the room, another caller the
// rest, and small requests wait for none of it.
func TestRoomOfOne(t *testing.T) {
	t.Parallel()
	room := bounds.NewRoom(bounds.Values)
	crowd, err := room.Take(t.Context(), "crowd", bounds.MaxValues)
	require.NoError(t, err)
	over, stop := context.WithCancel(t.Context())
	stop()
	_, err = room.Take(over, "crowd", 5000)
	require.ErrorIs(t, err, context.Canceled, "it has its share already")
	other, err := room.Take(t.Context(), "other", bounds.MaxValues)
	require.NoError(t, err)
	_, err = room.Take(over, "third", 5000)
	require.ErrorIs(t, err, context.Canceled, "nothing is left")
	small, err := room.Take(t.Context(), "crowd", 4096)
	require.NoError(t, err)
	free, err := room.Take(t.Context(), "third", 10)
	require.NoError(t, err)
	for _, held := range []*bounds.Held{crowd, other, small, free, crowd} { // twice is as once
		held.Leave()
	}
	_, err = room.Take(t.Context(), "third", bounds.MaxValues)
	require.NoError(t, err)
}

// TestRoomIsGivenBack: whatever callers take, wait for and give up, all of the room is there
// in the end, and nobody ever has more than is.
func TestRoomIsGivenBack(t *testing.T) {
	t.Parallel()
	room := bounds.NewRoom(bounds.Values)
	var mu sync.Mutex
	var held, most int64
	add := func(n int64) {
		mu.Lock()
		defer mu.Unlock()
		held += n
		most = max(most, held)
	}
	var calls sync.WaitGroup
	for caller := range 8 {
		for n := range 25 {
			calls.Go(func() {
				values := int64(5000 + 4000*n)
				ctx, stop := context.WithCancel(t.Context())
				defer stop()
				if n%5 == 0 {
					stop()
				}
				held, err := room.Take(ctx, string(rune('a'+caller)), values)
				if err != nil {
					return
				}
				add(values)
				add(-values)
				held.Leave()
			})
		}
	}
	calls.Wait()
	require.LessOrEqual(t, most, int64(bounds.MaxValues))
	for _, caller := range []string{"x", "y"} {
		held, err := room.Take(t.Context(), caller, bounds.MaxValues)
		require.NoError(t, err)
		defer held.Leave()
	}
}

// TestValues: the scans tell of how many values a message is.
func TestValues(t *testing.T) {
	t.Parallel()
	list := make([]any, 500)
	free, err := structpb.NewStruct(map[string]any{"a": list, "b": 1})
	require.NoError(t, err)
	m := &accountv1.BatchCreateContactsRequest{}
	for range 10 {
		m.Contacts = append(m.Contacts, &accountv1.ContactInput{Name: strings.Repeat("x", 20), Metadata: free})
	}
	b, err := proto.Marshal(m)
	require.NoError(t, err)
	j, err := protojson.Marshal(m)
	require.NoError(t, err)
	wire, err := bounds.Wire(b, m.ProtoReflect().Descriptor())
	require.NoError(t, err)
	text, err := bounds.JSON(j, m.ProtoReflect().Descriptor())
	require.NoError(t, err)
	for _, n := range []int{wire, text} {
		require.InDelta(t, 10*503, n, 30)
	}
}
