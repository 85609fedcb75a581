package security_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/turumba/turumba/e2e/wire"
	"github.com/turumba/turumba/e2e/world"
	"github.com/turumba/turumba/kit/clock"
)

// starvedLimit is what a login may take while strangers do what they can.
const starvedLimit = 2 * time.Second

// flood is a crowd that calls every public RPC as often as it can.
type flood struct {
	w        *world.World
	fixtures []fixture
	victims  []string
	calls    atomic.Int64
	mu       sync.Mutex
	answers  map[int]int // by HTTP status
}

// TestStarvation: strangers who call everything that needs no token, from 200 addresses and
// then from one, keep nobody from logging in: not who shows that their device logged in
// before, at an address that is being guessed at, and not who shows nothing.
func TestStarvation(t *testing.T) {
	s := report.suite("starvation")
	w := world.New(t)
	sides, connections, lasts := 200, 1, 6*time.Second
	if full {
		connections, lasts = 2, 2*time.Minute // a hundred logins and more, of which the 99th counts
	}
	f := &flood{w: w, answers: map[int]int{}}
	for _, x := range loadFixtures(t) {
		if wire.AuthOf(x.method).GetPublic() {
			f.fixtures = append(f.fixtures, x)
		}
	}
	known := &victim{w: w, from: "127.0.2.1", email: w.Vars["owner_email"]}
	require.Equal(t, http.StatusOK, known.login(t.Context(), t))
	unknown := &victim{w: w, from: "127.0.2.2", email: w.Vars["spare_email"], forgets: true}
	f.victims = []string{known.email}
	slowest := time.Duration(0)
	for _, crowd := range []struct {
		name               string
		sides, connections int
	}{{"200 addresses", sides, connections}, {"one address", 1, 200 * connections}} {
		w.ForgetAttempts(t)
		ctx, stop := context.WithCancel(t.Context())
		stopped := f.run(ctx, crowd.sides, crowd.connections)
		for _, v := range []*victim{known, unknown} {
			v.took, v.codes = nil, map[int]int{}
		}
		for end := clock.System().Now().Add(lasts); clock.System().Now().Before(end); {
			known.login(t.Context(), t)
			unknown.login(t.Context(), t)
		}
		stop()
		require.NoError(t, stopped())
		for name, v := range map[string]*victim{"a known device": known, "an unknown one": unknown} {
			p99 := v.p99()
			slowest = max(slowest, p99)
			t.Logf("%s, %s: %d logins, p50 %s, p99 %s, answers %v; strangers: %d calls, answers %v", crowd.name, name, len(v.took), v.at(0.5), p99, v.codes, f.calls.Load(), f.answers)
			s.check(t, v.codes[http.StatusGatewayTimeout] == 0, "%s, %s: %v", crowd.name, name, v.codes)
			s.check(t, v.codes[http.StatusTooManyRequests] == 0, "%s, %s was told to wait: %v", crowd.name, name, v.codes)
			s.check(t, v.codes[http.StatusOK] > 0, "%s, %s never logged in: %v", crowd.name, name, v.codes)
			if full {
				s.check(t, p99 <= starvedLimit, "%s, %s: p99 %s", crowd.name, name, p99)
				s.check(t, v.codes[http.StatusOK]*100 >= 95*len(v.took), "%s, %s: %v", crowd.name, name, v.codes)
			}
		}
	}
	s.coverage = fmt.Sprintf("%d public RPCs, 200 addresses and one; p99 of a login %s", len(f.fixtures), slowest.Round(time.Millisecond))
}

// from is a client that calls from an address of its own.
func from(address string) *http.Client {
	d := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}
	return &http.Client{Timeout: 45 * time.Second, Transport: &http.Transport{DialContext: d.DialContext}}
}

// run lets the crowd call until ctx ends.
func (f *flood) run(ctx context.Context, sides, connections int) (stopped func() error) {
	f.calls.Store(0)
	f.answers = map[int]int{}
	g, ctx := errgroup.WithContext(ctx)
	for side := range sides {
		client := from(fmt.Sprintf("127.0.1.%d", 1+side))
		for c := range connections {
			g.Go(func() error {
				defer client.CloseIdleConnections()
				for i := side + c; ctx.Err() == nil; i++ {
					f.call(ctx, client, i)
				}
				return nil
			})
		}
	}
	return g.Wait
}

// call makes one call: each RPC in turn, for addresses that nobody has and for victims'.
func (f *flood) call(ctx context.Context, client *http.Client, i int) {
	x := f.fixtures[i%len(f.fixtures)]
	n := f.calls.Add(1)
	body := x.body(numbered(f.w, int(n)), "", "")
	if _, ok := body["email"]; ok && n%2 == 0 {
		body["email"] = f.victims[0]
	}
	target := wire.Target{HTTP: client, BaseURL: f.w.BaseURL}
	got, err := target.Do(ctx, wire.REST, wire.Call{Method: x.method, Body: body})
	if err != nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answers[got.HTTP]++
}

// victim is somebody who logs in again and again.
type victim struct {
	w           *world.World
	from, email string
	forgets     bool // its device shows no token
	device      string
	client      *http.Client
	took        []time.Duration
	codes       map[int]int
}

func (v *victim) login(ctx context.Context, t *testing.T) (status int) {
	t.Helper()
	if v.client == nil {
		v.client = from(v.from)
		t.Cleanup(v.client.CloseIdleConnections)
		v.codes = map[int]int{}
	}
	body, err := json.Marshal(map[string]string{"email": v.email, "password": world.Password, "device_token": v.device})
	require.NoError(t, err)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, v.w.BaseURL+"/v1/auth/login", bytes.NewReader(body))
	require.NoError(t, err)
	req.Header.Set("Content-Type", "application/json")
	began := clock.System().Now()
	res, err := v.client.Do(req)
	require.NoError(t, err)
	data, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	require.NoError(t, res.Body.Close())
	v.took = append(v.took, clock.System().Now().Sub(began))
	v.codes[res.StatusCode]++
	var answer struct {
		DeviceToken string `json:"device_token"`
	}
	if res.StatusCode == http.StatusOK && !v.forgets {
		require.NoError(t, json.Unmarshal(data, &answer))
		require.NotEmpty(t, answer.DeviceToken)
		v.device = answer.DeviceToken
	}
	return res.StatusCode
}

// at is the time within which a part of the logins was answered.
func (v *victim) at(part float64) time.Duration {
	sorted := slices.Sorted(slices.Values(v.took))
	return sorted[min(len(sorted)-1, int(part*float64(len(sorted))))].Round(time.Millisecond)
}

func (v *victim) p99() time.Duration { return v.at(0.99) }
