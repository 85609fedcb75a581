package chaos_test

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/streams"
)

// droppedExports: each second one token opens 20 exports, reads nothing and drops them,
// while many calls without an answer stand. Others' single messages go out as ever, and the
// exports beyond the limit are refused.
func droppedExports(r *trial) {
	const contacts = 20_000 // more than the buffers on the way hold: no export comes to its end
	tenants, channels, singles := 4, 15, 100
	if r.full {
		tenants, channels, singles = 10, 40, 300
	}
	exporter, well := r.tenant(contacts), r.mailer(connections(16))
	well.proven()
	silent := r.silentTenants(tenants, channels, 1)
	r.stand(silent)
	before := well.codes(singles)
	waited := r.metric(r.worker, "turumba_db_wait_seconds_total")

	drops, took := exporter.dropper(), stopwatch()
	beside := well.codes(singles)
	opened, most := drops.end(), streams.PerCaller*int(1+took()/streams.ReadHold)
	waited = r.metric(r.worker, "turumba_db_wait_seconds_total") - waited
	r.endSilence(r.called(silent))
	r.did("%d silent calls; p99 of others %.2f s without exports and %.2f s beside %v by status; the worker waited %.1f s for connections", len(silent), before, beside, opened, waited)
	r.t.Log(r.note)
	require.LessOrEqual(r.t, beside, 1.0, "p99 of others' single messages in seconds, without exports: %.2f", before)
	require.NotZero(r.t, opened[http.StatusOK])
	require.LessOrEqual(r.t, opened[http.StatusOK], most, "exports that were begun")
	require.NotZero(r.t, opened[http.StatusTooManyRequests], "exports beyond the limit")
}

// stand waits until every tenant's call is open for so long that its channel rests.
func (r *trial) stand(silent []*tenant) {
	r.t.Helper()
	channels := make([]string, len(silent))
	for i, x := range silent {
		channels[i] = x.channel
	}
	require.Eventually(r.t, func() bool {
		return r.number("SELECT count(*) FROM channels WHERE id = ANY ($1::uuid[]) AND circuit_until IS NOT NULL", channels) == len(channels)
	}, patience, time.Second, "all calls are silent")
}

// codes makes n single messages, ten a second, and tells the 99th percentile of the seconds
// from the call to the provider's answer.
func (x *tenant) codes(n int) (p99 float64) {
	x.t.Helper()
	ids, began := make([]string, n), make([]time.Time, n)
	for i := range n {
		began[i] = clock.System().Now()
		ids[i] = x.accept(x.request(fmt.Sprint("code", i)))
		require.NoError(x.t, clock.Sleep(x.t.Context(), clock.System(), 100*time.Millisecond))
	}
	x.eventually("others' messages are sent", "SELECT count(*) = 0 FROM messages WHERE id = ANY ($1::uuid[]) AND status <> 'sent'", ids)
	require.NoError(x.t, x.sql.QueryRow(x.t.Context(), `SELECT percentile_cont(0.99) WITHIN GROUP (ORDER BY extract(epoch FROM m.sent_at - b.began))::float8
		FROM unnest($1::uuid[], $2::timestamptz[]) AS b (id, began) JOIN messages m USING (id)`, ids, began).Scan(&p99))
	return p99
}

// dropper opens exports and drops them until its end.
type dropper struct {
	x      *tenant
	client *http.Client
	stop   context.CancelFunc
	open   sync.WaitGroup

	mu     sync.Mutex
	status map[int]int
}

// dropper opens 20 exports of the tenant each second and drops those of the second before.
func (x *tenant) dropper() *dropper {
	x.t.Helper()
	d := &dropper{x: x, client: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}, status: map[int]int{}}
	ctx, stop := context.WithCancel(x.t.Context())
	d.stop = stop
	d.open.Go(func() {
		for ctx.Err() == nil {
			second, drop := context.WithTimeout(ctx, time.Second)
			for range 20 {
				d.open.Go(func() { d.export(second) })
			}
			<-second.Done()
			drop()
		}
	})
	return d
}

// export opens one and reads nothing of it until ctx ends.
func (d *dropper) export(ctx context.Context) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, d.x.rest+"/v1/contacts/export", nil)
	if err != nil {
		d.x.t.Error(err)
		return
	}
	req.Header.Set("Authorization", "Bearer "+d.x.token)
	code := 0 // dropped before it was answered
	if resp, err := d.client.Do(req); err == nil {
		code = resp.StatusCode
		<-ctx.Done()
		_ = resp.Body.Close() // it was not read
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.status[code]++
}

// end drops what is open and tells how the exports were answered.
func (d *dropper) end() map[int]int {
	d.stop()
	d.open.Wait()
	d.client.CloseIdleConnections()
	return d.status
}
