package dispatch

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/services/messaging/channel"
)

// TestRunOfRefusals: ten recipients in two domains who are refused alike, with nobody served
// between, mean the channel.
func TestRunOfRefusals(t *testing.T) {
	t.Parallel()
	refused := channel.Result{Outcome: channel.Rejected, Class: channel.ClassRefused, Code: "554", SubCode: "5.7.1"}
	other := refused
	other.SubCode = "5.7.25"
	served := channel.Result{Outcome: channel.Accepted, Class: channel.ClassOK}
	gone := channel.Result{Outcome: channel.Rejected, Class: channel.ClassPermanentRecipient, Code: "550", SubCode: "5.1.1"}
	to := func(n, domains int) string { return fmt.Sprintf("a%d@d%d.example", n, n%domains) }
	many := func(res channel.Result, n, domains int) func(*refusals) bool {
		return func(f *refusals) (whole bool) {
			for i := range n {
				whole = f.add(res, to(i, domains), false)
			}
			return whole
		}
	}
	for name, c := range map[string]struct {
		calls []func(*refusals) bool
		want  bool
	}{
		"ten in two domains": {[]func(*refusals) bool{many(refused, 10, 2)}, true},
		"nine":               {[]func(*refusals) bool{many(refused, 9, 3)}, false},
		"one domain":         {[]func(*refusals) bool{many(refused, 50, 1)}, false},
		"one recipient": {[]func(*refusals) bool{func(f *refusals) (w bool) {
			for range 50 {
				w = f.add(refused, "a@b.example", false)
			}
			return w
		}}, false},
		"somebody served between":     {[]func(*refusals) bool{many(refused, 9, 3), many(served, 1, 1), many(refused, 9, 3)}, false},
		"another refusal between":     {[]func(*refusals) bool{many(refused, 9, 3), many(other, 1, 1), many(refused, 9, 3)}, false},
		"recipients who do not exist": {[]func(*refusals) bool{many(gone, 100, 5)}, false},
		"and they between":            {[]func(*refusals) bool{many(refused, 9, 3), many(gone, 20, 3), func(f *refusals) bool { return f.add(refused, "z@z.example", false) }}, true},
		"the probe of a channel":      {[]func(*refusals) bool{many(refused, 12, 2), func(f *refusals) bool { return f.add(refused, "a0@d0.example", true) }}, true},
		"the next tries of many": {[]func(*refusals) bool{func(f *refusals) (w bool) {
			for i := range 50 {
				w = f.add(refused, to(i, 5), true)
			}
			return w
		}}, false},
		"a channel that works again": {[]func(*refusals) bool{many(refused, 12, 2), many(served, 1, 1), func(f *refusals) bool { return f.add(refused, "z@z.example", false) }}, false},
	} {
		f, got := &refusals{}, false
		for _, call := range c.calls {
			got = call(f)
		}
		require.Equal(t, c.want, got, name)
	}
}

// TestRestsGrow: a channel whose provider goes on to say that it is called too fast is called
// less and less, all calls of a moment counting once, until somebody is served.
func TestRestsGrow(t *testing.T) {
	t.Parallel()
	f, now := &throttles{}, time.Unix(1_770_000_000, 0)
	for n := range 12 {
		want := 2 * time.Second << min(n, 7)
		require.Equal(t, want, f.rest(now))
		require.Equal(t, want-time.Second, f.rest(now.Add(time.Second)), "another call of the same moment")
		now = now.Add(want)
	}
	f.add(channel.Result{Outcome: channel.Accepted, Class: channel.ClassOK}, "m")
	require.Equal(t, 2*time.Second, f.rest(now))
}

// TestThrottledMessage: a message that is refused as too fast time after time, while others
// are served, is refused for its own sake; one that waits with all others is not.
func TestThrottledMessage(t *testing.T) {
	t.Parallel()
	slow := channel.Result{Outcome: channel.Rejected, Class: channel.ClassRateLimited}
	served := channel.Result{Outcome: channel.Accepted, Class: channel.ClassOK}
	f := &throttles{}
	for range 1000 {
		require.False(t, f.add(slow, "all wait"))
	}
	times := 0
	for !f.add(slow, "poison") {
		f.add(served, "another")
		times++
		require.Less(t, times, 100)
	}
	require.Equal(t, unlucky, times)
	for range 3 {
		for n := range unlucky {
			require.False(t, f.add(slow, "lucky in the end"), n)
			f.add(served, "another")
		}
		f.add(served, "lucky in the end")
	}
	for n := range 3 * mostThrottled {
		f.add(slow, string(rune(n)))
	}
	require.LessOrEqual(t, len(f.of), mostThrottled)
}
