package bounds_test

import (
	"context"
	"encoding/json"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/bounds"
)

// TestPageEnds: a page ends before the row that would make it too heavy, and never before the
// first.
func TestPageEnds(t *testing.T) {
	t.Parallel()
	page := bounds.NewPage(t.Context(), 0)
	require.NoError(t, page.Add(2*bounds.MaxPage, 0))
	require.ErrorIs(t, page.Add(0, 0), bounds.ErrFull)
	page = bounds.NewPage(t.Context(), 0)
	rows := 0
	for page.Add(3584, 0) == nil {
		rows++
	}
	require.Equal(t, bounds.MaxPage/4096, rows)
	page = bounds.NewPage(t.Context(), 1<<20)
	require.NoError(t, page.Add(0, 8000))
	require.ErrorIs(t, page.Add(0, 8000), bounds.ErrFull, "values weigh as well")
}

// TestPagesWait: small pages need no room; a large one that finds none waits, with nothing in
// its hands, until an answer is made.
func TestPagesWait(t *testing.T) {
	t.Parallel()
	room := bounds.NewRoom(bounds.Pages)
	large := func(caller string) (*bounds.Answer, *bounds.Page, error) {
		a := bounds.NewAnswer(room, caller)
		page := bounds.NewPage(bounds.WithAnswer(t.Context(), a), 0)
		require.NoError(t, page.Add(1000, 0), "a small page has no need to wait")
		return a, page, page.Add(3<<20, 0)
	}
	first, _, err := large("a")
	require.NoError(t, err)
	_, _, err = large("a")
	require.NoError(t, err)
	third, page, err := large("a")
	require.ErrorIs(t, err, bounds.ErrNoRoom, "two of the largest are one caller's share")
	waits := make(chan error, 1)
	late, leave := context.WithCancel(t.Context())
	go func() { waits <- page.Wait(late) }()
	require.Eventually(t, func() bool { return room.Waits("a", bounds.MaxPage) }, time.Minute, time.Millisecond)
	early := bounds.NewPage(bounds.WithAnswer(late, bounds.NewAnswer(room, "a")), 0)
	require.NoError(t, early.Queue(late, 100), "a list of few rows reads")
	leave()
	require.ErrorIs(t, early.Queue(late, 1000), context.Canceled, "one of many waits before it reads")
	require.ErrorIs(t, <-waits, context.Canceled)
	require.NoError(t, early.Queue(late, 1000), "nobody waits")
	_, other, err := large("b")
	require.NoError(t, err)
	other.Read() // leaves what it does not need
	over, stop := context.WithCancel(t.Context())
	stop()
	require.ErrorIs(t, page.Wait(over), context.Canceled)
	first.Leave()
	require.NoError(t, page.Wait(t.Context()))
	require.NoError(t, page.Add(3<<20, 0))
	third.Leave()
	third.Leave()
}

// TestSlowReadersAreCut: who reads too slowly is cut when somebody waits for the room, and
// not before.
func TestSlowReadersAreCut(t *testing.T) {
	t.Parallel()
	room := bounds.NewRoom(bounds.Measure{All: 2000, One: 1000, Uncounted: 10})
	var cut atomic.Int32
	for _, caller := range []string{"a", "b"} {
		held, err := room.Take(t.Context(), caller, 1000)
		require.NoError(t, err)
		held.Sent(func() {
			cut.Add(1)
			go held.Leave()
		})
	}
	_, ok := room.Try("c", 500)
	require.False(t, ok)
	require.Zero(t, cut.Load(), "who only tries has nobody cut")
	held, err := room.Take(t.Context(), "c", 500)
	require.NoError(t, err)
	require.EqualValues(t, 1, cut.Load())
	held.Leave()
}

// TestManyPages: a page that finds no room in time says when to come again.
func TestManyPages(t *testing.T) {
	t.Parallel()
	room := bounds.NewRoom(bounds.Pages)
	_, err := room.Take(t.Context(), "a", 2*bounds.MaxPage)
	require.NoError(t, err)
	page := bounds.NewPage(bounds.WithAnswer(t.Context(), bounds.NewAnswer(room, "a")), 0)
	require.ErrorIs(t, page.Add(1<<20, 0), bounds.ErrNoRoom)
	err = page.Wait(t.Context())
	require.True(t, apierr.HasReason(err, errorv1.Reason_REASON_UNAVAILABLE))
	require.Equal(t, time.Second, apierr.From(err).RetryAfter)
}

// TestJSONValues: as many as a decoder finds, for any JSON; a list or object without anything
// in it counts as one.
func TestJSONValues(t *testing.T) {
	t.Parallel()
	var value func(depth int) *rapid.Generator[any]
	value = func(depth int) *rapid.Generator[any] {
		leaf := []*rapid.Generator[any]{
			rapid.Just[any](nil), rapid.Bool().AsAny(), rapid.Float64Range(-1e9, 1e9).AsAny(), rapid.StringOf(rapid.RuneFrom([]rune(`ab",[]{}:\ é`))).AsAny(),
		}
		if depth > 3 {
			return rapid.OneOf(leaf...)
		}
		inner := rapid.Deferred(func() *rapid.Generator[any] { return value(depth + 1) })
		return rapid.OneOf(append(leaf, rapid.SliceOfN(inner, 0, 5).AsAny(), rapid.MapOfN(rapid.String(), inner, 0, 5).AsAny())...)
	}
	rapid.Check(t, func(t *rapid.T) {
		v := value(0).Draw(t, "value")
		raw, err := json.Marshal(v)
		require.NoError(t, err)
		require.Equal(t, count(v), bounds.JSONValues(raw), "%s", raw)
	})
}

func count(v any) (n int) {
	switch v := v.(type) {
	case []any:
		for _, item := range v {
			n += count(item)
		}
		return n + max(1, len(v))
	case map[string]any:
		for _, item := range v {
			n += count(item)
		}
		return n + max(1, len(v))
	}
	return 0
}
