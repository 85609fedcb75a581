package chaos_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	accountv1 "github.com/turumba/turumba/gen/turumba/account/v1"
	messagingv1 "github.com/turumba/turumba/gen/turumba/messaging/v1"
	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/streams"
)

// streamRows open more streams than there is room for, and stop what serves them
// (catalogue F-95 to F-97).
func streamRows() []row {
	return []row{
		{"F-95", "10 000 watches by one token", quick, beside, watchesOfOne},
		{"F-96", "10 000 watches by 500 callers of 50 accounts", quick, alone, watchesOfMany},
		{"F-97", "a single copy stops under load with watches open", quick, alone, stopWithWatches},
	}
}

// watcher opens watches over REST, each on a connection of its own.
type watcher struct {
	r      *trial
	client *http.Client
	open   sync.WaitGroup
	ctx    context.Context
	leave  context.CancelFunc
	last   chan string // the last line of each watch that ended by itself

	mu     sync.Mutex
	status map[int]int
}

func (r *trial) watcher() *watcher {
	w := &watcher{r: r, client: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}, status: map[int]int{}, last: make(chan string, 16)}
	w.ctx, w.leave = context.WithCancel(r.t.Context())
	return w
}

// watch opens one and returns after its first line; the others are read until leave.
func (w *watcher) watch(token, send string) error {
	req, err := http.NewRequestWithContext(w.ctx, http.MethodGet, w.r.rest+"/v1/group-messages/"+send+"/watch", nil)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := w.client.Do(req)
	if err != nil {
		return err
	}
	w.mu.Lock()
	w.status[resp.StatusCode]++
	w.mu.Unlock()
	lines := bufio.NewScanner(bufio.NewReaderSize(resp.Body, 1<<10))
	if !lines.Scan() {
		return fmt.Errorf("no line: %w", lines.Err())
	}
	if resp.StatusCode != http.StatusOK {
		return resp.Body.Close()
	}
	w.open.Go(func() {
		defer func() { _ = resp.Body.Close() }() // it was read
		said := lines.Text()
		for lines.Scan() {
			said = lines.Text()
		}
		select {
		case w.last <- said:
		default:
		}
	})
	return nil
}

// crowd opens n watches, 32 at a time; of tells who of them watches what.
func (w *watcher) crowd(n int, of func(i int) (token, send string)) {
	w.r.t.Helper()
	var next atomic.Int64
	var opening sync.WaitGroup
	for range 32 {
		opening.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				if err := w.watch(of(i)); err != nil {
					w.r.t.Errorf("watch %d: %v", i, err)
					return
				}
			}
		})
	}
	opening.Wait()
}

// end closes all watches.
func (w *watcher) end() {
	w.leave()
	w.open.Wait()
	w.client.CloseIdleConnections()
}

// draft is a send that waits for its owner.
func (x *tenant) draft() string {
	x.t.Helper()
	req := x.toGroup()
	req.Status = messagingv1.GroupMessageStatus_GROUP_MESSAGE_STATUS_DRAFT
	res, err := messagingv1.NewGroupMessageServiceClient(x.messagingConn).CreateGroupMessage(x.ctx(), req)
	require.NoError(x.t, err)
	return res.GetGroupMessage().GetId()
}

// p99 measures reads of a send over REST.
func (x *tenant) p99(send string, calls int) time.Duration {
	x.t.Helper()
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 4}}
	defer client.CloseIdleConnections()
	var took []time.Duration
	for i := range calls + 50 {
		req, err := http.NewRequestWithContext(x.t.Context(), http.MethodGet, x.rest+"/v1/group-messages/"+send, nil)
		require.NoError(x.t, err)
		req.Header.Set("Authorization", "Bearer "+x.token)
		call := stopwatch()
		resp, err := client.Do(req)
		require.NoError(x.t, err)
		require.NoError(x.t, json.NewDecoder(resp.Body).Decode(&map[string]any{}))
		require.NoError(x.t, resp.Body.Close())
		require.Equal(x.t, http.StatusOK, resp.StatusCode)
		if i >= 50 { // caches are warm
			took = append(took, call())
		}
	}
	return part(took, 0.99)
}

// watchesOfOne: 20 are admitted, the rest is refused, and another tenant does not notice.
func watchesOfOne(r *trial) {
	x, other := r.tenant(0), r.tenant(0)
	send, watches := x.draft(), r.times(10_000)
	w := r.watcher()
	w.crowd(watches, func(int) (string, string) { return x.token, send })
	require.Equal(r.t, map[int]int{http.StatusOK: 20, http.StatusTooManyRequests: watches - 20}, w.status)
	other.messages(10)
	x.messages(10)
	w.end()
	r.within(5*time.Second, "there is room again", func() bool { return r.metric(r.gateway, "turumba_http_open_requests") == 0 })
	again := r.watcher()
	require.Eventually(r.t, func() bool { // their places count for a while (ADR 0051)
		again.crowd(20-again.status[http.StatusOK], func(int) (string, string) { return x.token, send })
		return again.status[http.StatusOK] == 20
	}, streams.ReadHold+5*time.Second, 500*time.Millisecond, "20 are admitted again")
	again.end()
	r.did("%d watches by one token: 20 admitted, the rest 429; two tenants sent meanwhile", watches)
}

// watchesOfMany: all are admitted, each gets its first line, the database is looked at as
// for one, and other calls are as fast.
func watchesOfMany(r *trial) {
	const keys, each = 10, 20
	x := r.tenant(0)
	own := x.draft()
	accounts := r.times(50)
	tokens, sends := make([]string, accounts*keys), make([]string, accounts)
	var owner *tenant
	for i := range accounts {
		if i%4 == 0 { // nobody owns more than five accounts
			owner = r.tenant(0)
		}
		sends[i] = owner.secondAccount(tokens[i*keys : (i+1)*keys])
	}
	const slack = 2 * time.Millisecond // what a machine with other work may add
	typical := func() time.Duration {  // the middle of three: a hiccup of the machine decides nothing
		took := []time.Duration{x.p99(own, r.times(5000)), x.p99(own, r.times(5000)), x.p99(own, r.times(5000))}
		return part(took, 0.5)
	}
	before, small := typical(), r.resident(r.gateway, r.messaging)
	w := r.watcher()
	w.crowd(accounts*keys*each, func(i int) (string, string) {
		caller := i / each
		return tokens[caller], sends[caller/keys]
	})
	require.Equal(r.t, map[int]int{http.StatusOK: accounts * keys * each}, w.status)
	during, large := typical(), r.resident(r.gateway, r.messaging)
	w.end()
	require.LessOrEqual(r.t, during, before*3/2+slack, "p99 of a read: alone %s", before)
	r.did("%d watches by %d callers of %d accounts; p99 of a read %s before, %s meanwhile; %.0f KiB each over gateway and service", accounts*keys*each, accounts*keys, accounts, before, during,
		(large-small)/float64(accounts*keys*each))
}

// resident is the memory of the programs, in KiB.
func (r *trial) resident(of ...*program) (kib float64) {
	for _, p := range of {
		kib += r.metric(p, "process_resident_memory_bytes") / (1 << 10)
	}
	return kib
}

// secondAccount makes a further account of the owner with a draft, and tokens of API keys
// there.
func (x *tenant) secondAccount(tokens []string) (send string) {
	x.t.Helper()
	made, err := accountv1.NewAccountServiceClient(x.accountConn).CreateAccount(x.ctx(), &accountv1.CreateAccountRequest{Name: "Second " + uuid.NewString()[:8]})
	require.NoError(x.t, err)
	account := made.GetAccount().GetId()
	for i := range tokens {
		key, err := accountv1.NewApiKeyServiceClient(x.accountConn).CreateApiKey(x.ctx(), &accountv1.CreateApiKeyRequest{
			AccountId: account, Name: fmt.Sprint("key ", i), Permissions: []string{"group_messages.read"},
		})
		require.NoError(x.t, err)
		issued, err := accountv1.NewAuthServiceClient(x.accountConn).IssueToken(x.t.Context(), &accountv1.IssueTokenRequest{
			GrantType: "client_credentials", ClientId: key.GetApiKey().GetId(), ClientSecret: key.GetSecret(),
		})
		require.NoError(x.t, err)
		tokens[i] = issued.GetAccessToken()
	}
	require.NoError(x.t, x.sql.QueryRow(x.t.Context(), `
		INSERT INTO group_messages (id, account_id, channel_id, template_id, status, contact_group_ids, created_at, updated_at)
		VALUES (gen_random_uuid(), $1, gen_random_uuid(), gen_random_uuid(), 'draft', '{}', now(), now()) RETURNING id::text`, account).Scan(&send))
	return send
}

// readers read a send over REST, four at a time, until stop, which tells how many reads
// failed. After a failure they wait a little, so that failures measure time.
func (x *tenant) readers(send string) (stop func() (failed int)) {
	x.t.Helper()
	ctx, cancel := context.WithCancel(x.t.Context())
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 4}, Timeout: callLimit}
	var reading sync.WaitGroup
	var good, bad atomic.Int64
	for range 4 {
		reading.Go(func() {
			for ctx.Err() == nil {
				if x.reads(ctx, client, send) {
					good.Add(1)
					continue
				}
				bad.Add(1)
				_ = clock.Sleep(ctx, clock.System(), blink) // the end is seen above
			}
		})
	}
	until := func() {
		before := good.Load()
		require.Eventually(x.t, func() bool { return good.Load() > before+20 }, soon, blink, "reads are answered")
	}
	until()
	return func() int {
		until()
		failed := int(bad.Load())
		cancel()
		reading.Wait()
		client.CloseIdleConnections()
		return failed
	}
}

func (x *tenant) reads(ctx context.Context, client *http.Client, send string) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, x.rest+"/v1/group-messages/"+send, nil)
	if err != nil {
		return false
	}
	req.Header.Set("Authorization", "Bearer "+x.token)
	resp, err := client.Do(req)
	if err != nil {
		return false
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.Body.Close() == nil && err == nil && resp.StatusCode == http.StatusOK
}

// stopWithWatches: the messaging service and the gateway stop as fast with watches open
// as without, no more calls fail, and the watches are told.
func stopWithWatches(r *trial) {
	x, times := r.tenant(0), max(r.times(10), 3)
	send := x.draft()
	failed, longest := map[bool][]int{}, map[bool]time.Duration{}
	for range times {
		for _, watched := range []bool{false, true} {
			w := r.watcher()
			if watched {
				x.watched(w, send)
			}
			stop, took := x.readers(send), stopwatch()
			r.terminated(r.messaging)
			longest[watched] = max(longest[watched], took())
			r.messaging.start()
			failed[watched] = append(failed[watched], stop())
			if watched {
				require.Contains(r.t, <-w.last, `"UNAVAILABLE"`)
			}
			w.end()
		}
	}
	w := r.watcher()
	w.crowd(5, func(int) (string, string) { return x.token, send })
	took := stopwatch()
	r.terminated(r.gateway)
	gateway := took()
	require.Contains(r.t, <-w.last, `"UNAVAILABLE"`)
	w.end()
	r.gateway.start()
	require.LessOrEqual(r.t, longest[true], longest[false]+time.Second, "the slowest stop with watches open")
	require.LessOrEqual(r.t, gateway, 2*time.Second, "the stop of the gateway")
	slices.Sort(failed[false])
	slices.Sort(failed[true])
	alone, beside := failed[false][times/2], failed[true][times/2]
	require.LessOrEqual(r.t, beside, alone*3/2+20, "failed calls with watches open, median")
	r.did("%d stops each: %d calls failed at each without watches, %d with (median); at most %s and %s; gateway %s", times, alone, beside, longest[false], longest[true], gateway)
}

// watched opens five watches over REST and one over gRPC.
func (x *tenant) watched(w *watcher, send string) {
	x.t.Helper()
	w.r.within(2*time.Second, "watches are admitted", func() bool { // 503 in the moment after the service came back
		w.crowd(5-w.status[http.StatusOK], func(int) (string, string) { return x.token, send })
		return w.status[http.StatusOK] == 5
	})
	direct, err := messagingv1.NewGroupMessageServiceClient(x.messagingConn).WatchGroupMessage(
		metadata.AppendToOutgoingContext(w.ctx, "authorization", "Bearer "+x.token), &messagingv1.WatchGroupMessageRequest{GroupMessageId: send},
		grpc.WaitForReady(true)) // the service has just come back, and this connection carried nothing meanwhile
	require.NoError(x.t, err)
	_, err = direct.Recv()
	require.NoError(x.t, err)
}
