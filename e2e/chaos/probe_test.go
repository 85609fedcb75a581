package chaos_test

import (
	"bufio"
	"context"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/google/uuid"
	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/kit/clock"
)

// stopwatch measures how long something takes by the machine's clock, which goes on
// when the database is away.
func stopwatch() (took func() time.Duration) {
	began := clock.System().Now()
	return func() time.Duration { return clock.System().Now().Sub(began) }
}

// within waits for something and requires that it took no longer than the limit.
func (r *trial) within(limit time.Duration, what string, ok func() bool) time.Duration {
	r.t.Helper()
	took := stopwatch()
	require.Eventually(r.t, ok, soon, blink, what)
	require.LessOrEqual(r.t, took(), limit, what)
	return took()
}

// ask gets a page of a program's admin listener; 0 if nobody answers.
func (r *trial) ask(p *program, page string) (status int, body []string) {
	r.t.Helper()
	client := &http.Client{Timeout: 5 * time.Second}
	defer client.CloseIdleConnections()
	res, err := client.Get(strings.TrimSuffix(p.ready, "/readyz") + page)
	if err != nil {
		return 0, nil
	}
	defer func() { _ = res.Body.Close() }() // it was only read
	for lines := bufio.NewScanner(res.Body); lines.Scan(); {
		body = append(body, lines.Text())
	}
	return res.StatusCode, body
}

// isReady is what a program's readiness says.
func (r *trial) isReady(p *program) bool {
	status, _ := r.ask(p, "/readyz")
	return status == http.StatusOK
}

// metric is the sum of a program's series whose text begins so and has all parts.
func (r *trial) metric(p *program, name string, parts ...string) (sum float64) {
	r.t.Helper()
	_, body := r.ask(p, "/metrics")
	for _, line := range body {
		series, value, _ := strings.Cut(line, "} ")
		if !strings.HasPrefix(line, name+"{") {
			if series, value, _ = strings.Cut(line, " "); series != name {
				continue
			}
		}
		if slices.ContainsFunc(parts, func(part string) bool { return !strings.Contains(series, part) }) {
			continue
		}
		n, err := strconv.ParseFloat(value, 64)
		require.NoError(r.t, err, line)
		sum += n
	}
	return sum
}

// onBroker does something to the broker past every proxy.
func (r *trial) onBroker(do func(ch *amqp.Channel) error) {
	r.t.Helper()
	conn, err := amqp.Dial(r.broker.URL())
	require.NoError(r.t, err)
	ch, err := conn.Channel()
	require.NoError(r.t, err)
	require.NoError(r.t, do(ch))
	require.NoError(r.t, conn.Close())
}

// drain takes all that is ready in a queue.
func (r *trial) drain(queue string) (all []amqp.Delivery) {
	r.t.Helper()
	r.onBroker(func(ch *amqp.Channel) error {
		for {
			m, more, err := ch.Get(queue, true)
			if err != nil || !more {
				return err
			}
			all = append(all, m)
		}
	})
	return all
}

// killDatabase kills the database server and all its processes.
func (r *trial) killDatabase() {
	r.t.Helper()
	r.watch.blindfold(true)
	for _, pid := range r.postgres.PIDs() {
		_ = syscall.Kill(pid, syscall.SIGKILL) // it may be gone
	}
	<-r.postgres.Done()
}

// reviveDatabase starts it again.
func (r *trial) reviveDatabase() {
	r.t.Helper()
	r.startPostgres(r.t)
	require.Eventually(r.t, func() bool { return r.sql.Ping(r.t.Context()) == nil }, soon, blink)
	r.watch.blindfold(false)
}

// load is what clients do in the background: each makes one message after the other,
// and repeats a call that failed with its key until it is accepted.
type load struct {
	x       *tenant
	stopped chan struct{}
	clients sync.WaitGroup

	mu      sync.Mutex
	took    []time.Duration // of accepted calls
	refused []time.Duration // of failed ones
	errs    []error
}

// callLimit is how long a client waits for one call.
const callLimit = 10 * time.Second

func (x *tenant) load(clients int) *load {
	l := &load{x: x, stopped: make(chan struct{})}
	for range clients {
		l.clients.Go(func() {
			for l.running() && l.one() {
			}
		})
	}
	return l
}

func (l *load) running() bool {
	select {
	case <-l.stopped:
		return false
	default:
		return true
	}
}

// one makes one message; false if it was never accepted.
func (l *load) one() bool {
	key, to, took := uuid.NewString(), "load"+uuid.NewString()[:8], stopwatch()
	for took() < soon {
		ctx, cancel := context.WithTimeout(l.x.withKey(key), callLimit)
		call := stopwatch()
		_, err := l.x.create(ctx, to)
		cancel()
		l.note(call(), err)
		if err == nil {
			return true
		}
		if clock.Sleep(l.x.t.Context(), clock.System(), blink) != nil { // a client that is in no hurry
			return false
		}
	}
	return false
}

func (l *load) note(took time.Duration, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil {
		l.took = append(l.took, took)
		return
	}
	l.refused, l.errs = append(l.refused, took), append(l.errs, err)
}

// counts is how many calls were accepted and refused so far.
func (l *load) counts() (accepted, refused int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.took), len(l.refused)
}

// until waits for n more accepted calls.
func (l *load) until(n int) {
	l.x.t.Helper()
	before, _ := l.counts()
	require.Eventually(l.x.t, func() bool { now, _ := l.counts(); return now >= before+n }, soon, blink, "%d more calls are accepted", n)
}

// stop ends the load once every call that was begun is accepted.
func (l *load) stop() {
	l.x.t.Helper()
	close(l.stopped)
	l.clients.Wait()
}

// part is the value below which a part of the durations lies.
func part(all []time.Duration, p float64) time.Duration {
	if len(all) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(all))
	return sorted[min(int(p*float64(len(sorted))), len(sorted)-1)]
}
