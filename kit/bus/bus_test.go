package bus_test

import (
	"context"
	"errors"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/turumba/turumba/kit/bus"
	"github.com/turumba/turumba/kit/clock"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestMatch(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		pattern, key string
		want         bool
	}{
		{"a", "a", true},
		{"a", "b", false},
		{"a", "a.b", false},
		{"a.*", "a.b", true},
		{"a.*", "a", false},
		{"a.*", "a.b.c", false},
		{"a.*", "a.", true},
		{"#", "a.b.c", true},
		{"#", "a", true},
		{"a.#", "a", true},
		{"a.#", "a.b.c", true},
		{"a.#.z", "a.z", true},
		{"a.#.z", "a.b.z.z", true},
		{"a.#.z", "a.b.z.y", false},
		{"#.b.#", "a.b.c", true},
		{"#.b.#.b", "b.a.b.c", false},
		{"*.#", "a", true},
		{"#.*", "a", true},
		{"*.*", "a", false},
		{"ab*", "abc", false},
	} {
		require.Equal(t, c.want, bus.Match(c.pattern, c.key), "%s against %s", c.pattern, c.key)
	}
}

// TestMatchAgainstRegexp compares with an independent reading of the rule.
func TestMatchAgainstRegexp(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		pattern := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "*", "#"}), 1, 6).Draw(t, "pattern")
		key := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "c"}), 1, 6).Draw(t, "key")
		var re strings.Builder
		for _, word := range pattern {
			switch word {
			case "*":
				re.WriteString(`\.[^.]*`)
			case "#":
				re.WriteString(`(\.[^.]*)*`)
			default:
				re.WriteString(`\.` + word)
			}
		}
		want := regexp.MustCompile(`^` + re.String() + `$`).MatchString("." + strings.Join(key, "."))
		if got := bus.Match(strings.Join(pattern, "."), strings.Join(key, ".")); got != want {
			t.Fatalf("Match(%v, %v) = %v", pattern, key, got)
		}
	})
}

func TestMessageValidate(t *testing.T) {
	t.Parallel()
	good := bus.Message{ID: "1", RoutingKey: "a.b", Headers: map[string]string{"k": "v"}}
	require.NoError(t, good.Validate())
	for name, m := range map[string]bus.Message{
		"no id":        {RoutingKey: "a"},
		"long id":      {ID: strings.Repeat("x", 256), RoutingKey: "a"},
		"no key":       {ID: "1"},
		"long key":     {ID: "1", RoutingKey: strings.Repeat("x", 256)},
		"big body":     {ID: "1", RoutingKey: "a", Body: make([]byte, bus.MaxBody+1)},
		"empty header": {ID: "1", RoutingKey: "a", Headers: map[string]string{"": "v"}},
		"long header":  {ID: "1", RoutingKey: "a", Headers: map[string]string{strings.Repeat("k", 129): "v"}},
		"big headers":  {ID: "1", RoutingKey: "a", Headers: map[string]string{"k": strings.Repeat("v", bus.MaxHeaders)}},
		"content type": {ID: "1", RoutingKey: "a", Headers: map[string]string{bus.HeaderContentType: strings.Repeat("v", 256)}},
	} {
		require.ErrorIs(t, m.Validate(), bus.ErrInvalid, name)
	}
}

func TestTopologyValidate(t *testing.T) {
	t.Parallel()
	good := bus.Topology{
		Exchange: "x", DeadLetterExchange: "x.dlx", DeadLetterQueue: "x.dlq",
		Queues: []bus.Queue{{Name: "q", Bindings: []string{"a.#"}}, {Name: "audit", Bindings: []string{"#"}, Optional: true}},
	}
	require.NoError(t, good.Validate())
	require.True(t, good.Routable("a.b"))
	require.False(t, good.Routable("b"), "an observer does not make a key routable")
	for name, change := range map[string]func(*bus.Topology){
		"no exchange":  func(t *bus.Topology) { t.Exchange = "" },
		"same":         func(t *bus.Topology) { t.DeadLetterExchange = t.Exchange },
		"no name":      func(t *bus.Topology) { t.Queues = []bus.Queue{{Bindings: []string{"a"}}} },
		"twice":        func(t *bus.Topology) { t.Queues = []bus.Queue{good.Queues[0], good.Queues[0]} },
		"dlq as queue": func(t *bus.Topology) { t.Queues = []bus.Queue{{Name: "x.dlq", Bindings: []string{"a"}}} },
		"no binding":   func(t *bus.Topology) { t.Queues = []bus.Queue{{Name: "q"}} },
		"empty":        func(t *bus.Topology) { t.Queues = []bus.Queue{{Name: "q", Bindings: []string{""}}} },
	} {
		bad := good
		change(&bad)
		require.ErrorIs(t, bad.Validate(), bus.ErrInvalid, name)
	}
}

func TestPolicyDelay(t *testing.T) {
	t.Parallel()
	p := bus.Policy{RetryDelay: time.Second, MaxRetryDelay: 5 * time.Second}.WithDefaults()
	require.Equal(t, 5, p.Attempts)
	require.Equal(t, time.Second, p.Delay(1))
	require.Equal(t, 2*time.Second, p.Delay(2))
	require.Equal(t, 4*time.Second, p.Delay(3))
	require.Equal(t, 5*time.Second, p.Delay(4))
	require.Equal(t, 5*time.Second, p.Delay(1000))
}

func TestPolicyCall(t *testing.T) {
	t.Parallel()
	p := bus.Policy{}.WithDefaults()
	boom := errors.New("boom")
	require.ErrorIs(t, p.Call(t.Context(), func(context.Context, bus.Message) error { return boom }, bus.Message{}), boom)
	err := p.Call(t.Context(), func(context.Context, bus.Message) error { panic("ouch") }, bus.Message{})
	require.ErrorContains(t, err, "handler panicked: ouch")
	require.NoError(t, p.Call(t.Context(), func(ctx context.Context, _ bus.Message) error {
		_, ok := ctx.Deadline()
		require.True(t, ok)
		return nil
	}, bus.Message{}))
}

func TestPolicyDrain(t *testing.T) {
	t.Parallel()
	c := clock.NewFake(time.Unix(0, 0))
	p := bus.Policy{DrainTimeout: time.Minute}.WithDefaults()
	ctx, end := context.WithCancel(t.Context())
	work, done := p.Drain(ctx, c)
	defer done()
	end()
	require.NoError(t, c.WaitForTimers(t.Context(), 1))
	require.NoError(t, work.Err())
	c.Advance(time.Minute)
	<-work.Done()

	ctx, end = context.WithCancel(t.Context())
	defer end()
	work, done = p.Drain(ctx, c)
	done()
	require.ErrorIs(t, work.Err(), context.Canceled)
}
