package chaos_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/services/messaging/postgres"
	"github.com/turumba/turumba/sim"
)

// historySQL keeps, beside the product, every state that a message was stored with
// and every lease that was taken from its holder.
const historySQL = `
CREATE TABLE chaos_history (message_id uuid NOT NULL, from_status text NOT NULL, to_status text NOT NULL, at timestamptz NOT NULL DEFAULT clock_timestamp());
CREATE TABLE chaos_recoveries (chunk_id uuid NOT NULL, epoch bigint NOT NULL, n int NOT NULL, at timestamptz NOT NULL DEFAULT clock_timestamp());
CREATE FUNCTION chaos_note() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
	IF TG_OP = 'INSERT' THEN
		INSERT INTO chaos_history (message_id, from_status, to_status) VALUES (NEW.id, '', NEW.status);
	ELSIF NEW.status <> OLD.status THEN
		INSERT INTO chaos_history (message_id, from_status, to_status) VALUES (NEW.id, OLD.status, NEW.status);
	END IF;
	RETURN NULL;
END $$;
CREATE FUNCTION chaos_recovered() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
	INSERT INTO chaos_recoveries (chunk_id, epoch, n) VALUES (OLD.id, OLD.epoch, OLD.n);
	RETURN NULL;
END $$;
CREATE TRIGGER chaos_note AFTER INSERT OR UPDATE OF status ON messages FOR EACH ROW EXECUTE FUNCTION chaos_note();
CREATE TRIGGER chaos_recovered AFTER UPDATE ON dispatch_chunks FOR EACH ROW
	WHEN (OLD.state = 'leased' AND NEW.state = 'ready' AND NEW.epoch > OLD.epoch) EXECUTE FUNCTION chaos_recovered();`

// illegalSQL finds steps outside the graph. The state sending is never stored, so
// what goes through it is one step here.
const illegalSQL = `
SELECT format('message %s went from %s to %s', message_id, from_status, to_status) FROM chaos_history
WHERE NOT message_status_allowed(from_status, to_status)
	AND NOT (message_status_allowed(from_status, 'sending') AND message_status_allowed('sending', to_status))
LIMIT 100`

// stuckSQL finds leases that nobody has taken over for two lease times.
const stuckSQL = `
SELECT format('chunk %s is leased and its lease is over since %s', id, lease_until) FROM dispatch_chunks
WHERE state = 'leased' AND lease_until < now() - interval '20 seconds'
UNION ALL
SELECT format('fan-out of %s is leased and its lease is over since %s', group_message_id, lease_until) FROM fanout_jobs
WHERE lease_until < now() - interval '20 seconds'`

// restSQL is what still has to happen.
const restSQL = `
SELECT (SELECT count(*) FROM fanout_jobs), (SELECT count(*) FROM dispatch_chunks), (SELECT count(*) FROM message_due),
	(SELECT count(*) FROM outbox_events WHERE published_at IS NULL),
	(SELECT count(*) FROM messages WHERE status IN ('scheduled', 'queued', 'sending', 'failed'))`

// wipeSQL empties the ledger between two rows, so that a row counts only its own, and
// no row waits for a look at what those before it left.
const wipeSQL = `TRUNCATE messages, message_addresses, message_attempts, message_due, message_expiries, group_messages, group_message_skips, fanout_jobs, dispatch_chunks, outbox_events, chaos_history, chaos_recoveries`

// wipe empties the ledger. It lets others pass that wait for one of the tables and hold
// another, long before the server looks for a deadlock and takes one of them for it.
func (r *trial) wipe() {
	r.t.Helper()
	ctx := context.WithoutCancel(r.t.Context())
	require.Eventually(r.t, func() bool {
		return nil == pgx.BeginFunc(ctx, r.sql, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, "SET LOCAL lock_timeout = '200ms'"); err != nil {
				return err
			}
			_, err := tx.Exec(ctx, wipeSQL)
			return err
		})
	}, soon, blink, "the ledger is emptied")
}

func (w *world) installHistory(t *testing.T) {
	t.Helper()
	_, err := w.sql.Exec(t.Context(), historySQL)
	require.NoError(t, err)
}

func lines(ctx context.Context, q postgres.Querier, sql string, args ...any) ([]string, error) {
	rows, err := q.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// found is what a look at the ledger found wrong.
type found struct{ drift, illegal []string }

func look(ctx context.Context, pool *pgxpool.Pool) (f found, err error) {
	if f.drift, err = postgres.CheckLedger(ctx, pool); err != nil {
		return f, err
	}
	f.illegal, err = lines(ctx, pool, illegalSQL)
	return f, err
}

// watch looks at the ledger every 250 ms, whatever the rows do meanwhile.
type watch struct {
	mu    sync.Mutex
	found found
	looks int
	errs  []string
	blind bool // the row has taken the database away
}

func startWatch(t *testing.T, pool *pgxpool.Pool) *watch {
	t.Helper()
	w, ctx := &watch{}, t.Context()
	var watching sync.WaitGroup
	watching.Go(func() {
		for clock.Sleep(ctx, clock.System(), 250*time.Millisecond) == nil {
			f, err := look(ctx, pool)
			if ctx.Err() == nil {
				w.note(f, err)
			}
		}
	})
	t.Cleanup(watching.Wait)
	return w
}

func (w *watch) note(f found, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.blind && err != nil {
		return
	}
	w.looks++
	w.found.drift, w.found.illegal = append(w.found.drift, f.drift...), append(w.found.illegal, f.illegal...)
	if err != nil {
		w.errs = append(w.errs, err.Error())
	}
}

// blindfold says whether the row takes the database away just now.
func (w *watch) blindfold(on bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.blind = on
}

// take returns what was found since the last call.
func (w *watch) take() (f found, looks int, errs []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f, looks, errs = w.found, w.looks, w.errs
	w.found, w.looks, w.errs = found{}, 0, nil
	return f, looks, errs
}

// figures are the columns of the report.
type figures struct {
	Accepted, Lost, Dup, Window, Drift, Illegal, Stuck, Recovered int
}

func (f *figures) add(g figures) {
	f.Accepted, f.Lost, f.Dup, f.Window = f.Accepted+g.Accepted, f.Lost+g.Lost, f.Dup+g.Dup, f.Window+g.Window
	f.Drift, f.Illegal, f.Stuck, f.Recovered = f.Drift+g.Drift, f.Illegal+g.Illegal, f.Stuck+g.Stuck, f.Recovered+g.Recovered
}

func (f *figures) String() string {
	return fmt.Sprintf("lost=%d dup=%d window=%d drift=%d illegal=%d stuck=%d recovered=%d", f.Lost, f.Dup, f.Window, f.Drift, f.Illegal, f.Stuck, f.Recovered)
}

// stored is a message in the ledger.
type stored struct{ Status, Code, Group, Contact string }

func (s stored) unknown() bool {
	return s.Status == "permanently_failed" && s.Code == "outcome_unknown"
}

func (r *trial) stored() map[string]stored {
	r.t.Helper()
	all := map[string]stored{}
	rows, err := r.sql.Query(r.t.Context(), "SELECT id::text, status, coalesce(error_code, ''), coalesce(group_message_id::text, ''), coalesce(contact_id::text, '') FROM messages")
	require.NoError(r.t, err)
	var id string
	var s stored
	_, err = pgx.ForEachRow(rows, []any{&id, &s.Status, &s.Code, &s.Group, &s.Contact}, func() error {
		all[id] = s
		return nil
	})
	require.NoError(r.t, err)
	return all
}

// received is what the provider has taken, by our message id, with the times.
func (r *trial) received() map[string][]time.Time {
	r.t.Helper()
	f, err := os.Open(r.simulator.Journal)
	require.NoError(r.t, err)
	defer func() { _ = f.Close() }() // it was only read
	got, numbers := map[string][]time.Time{}, r.numbers()
	for rec, err := range sim.Records(f) {
		if errors.Is(err, sim.ErrTorn) {
			break // it is being written
		}
		require.NoError(r.t, err)
		if id := numbers[rec.To]; id != "" {
			got[id] = append(got[id], rec.Time)
		} else if id, domain, _ := strings.Cut(rec.MessageID, "@"); domain == "chaos.example" {
			got[id] = append(got[id], rec.Time)
		}
	}
	return got
}

// check holds the ledger against the client's log and the provider's journal and
// returns the figures, with a line for all that is wrong.
func (r *trial) check() (f figures, problems []string) {
	r.t.Helper()
	ctx := r.t.Context()
	say := func(n *int, format string, a ...any) {
		*n++
		problems = append(problems, fmt.Sprintf(format, a...))
	}
	now, err := look(ctx, r.sql)
	require.NoError(r.t, err)
	seen, _, errs := r.watch.take()
	require.Empty(r.t, errs, "the watch")
	for _, p := range append(seen.drift, now.drift...) {
		say(&f.Drift, "drift: %s", p)
	}
	for _, p := range slices.Compact(slices.Sorted(slices.Values(append(seen.illegal, now.illegal...)))) {
		say(&f.Illegal, "illegal: %s", p)
	}
	stuck, err := lines(ctx, r.sql, stuckSQL)
	require.NoError(r.t, err)
	for _, p := range stuck {
		say(&f.Stuck, "stuck: %s", p)
	}
	require.NoError(r.t, r.sql.QueryRow(ctx, "SELECT count(*) FROM chaos_recoveries").Scan(&f.Recovered))
	r.compare(&f, say)
	return f, problems
}

// compare looks for what was lost, sent twice, or never asked for.
func (r *trial) compare(f *figures, say func(n *int, format string, a ...any)) {
	rows, received := r.stored(), r.received()
	asked := map[string]bool{}
	reached := map[string]map[string]bool{}
	for _, x := range r.of {
		f.Accepted += len(x.accepted)
		for _, id := range x.accepted {
			if asked[id] = true; rows[id].Status == "" {
				say(&f.Lost, "lost: message %s was accepted and has no row", id)
			}
		}
		for id := range x.sends {
			reached[id] = map[string]bool{}
		}
	}
	for id, m := range rows {
		if reached[m.Group] != nil {
			asked[id], reached[m.Group][m.Contact] = true, true
		}
		n := len(received[id])
		switch {
		case !asked[id]:
			say(&f.Dup, "dup: message %s was never accepted", id)
		case m.Status == "sent" && n == 0:
			say(&f.Lost, "lost: message %s is sent and the provider never had it", id)
		case n > 0 && m.Status != "sent" && !m.unknown():
			say(&f.Lost, "lost: the provider has message %s, which is %s", id, m.Status)
		}
		if n > 1 {
			say(&f.Dup, "dup: the provider has message %s %d times", id, n)
			f.Dup += n - 2
		}
		if m.unknown() {
			f.Window++
		}
	}
	r.compareSends(f, reached, say)
}

// compareSends holds the recipients of each send against the group it was for.
func (r *trial) compareSends(f *figures, reached map[string]map[string]bool, say func(n *int, format string, a ...any)) {
	for _, x := range r.of {
		for id, want := range x.sends {
			f.Accepted += len(want)
			for _, contact := range want {
				if !reached[id][contact] {
					say(&f.Lost, "lost: send %s has no message for contact %s", id, contact)
				}
			}
			if len(reached[id]) > len(want) {
				say(&f.Dup, "dup: send %s has %d recipients too many", id, len(reached[id])-len(want))
			}
		}
	}
}

// settle ends every fault, starts what was killed, and waits until nothing is left to
// do.
func (r *trial) settle() {
	r.t.Helper()
	for _, p := range r.proxies() {
		require.NoError(r.t, p.Pass())
	}
	for _, p := range r.programs() {
		if !p.runs() {
			p.launch()
		}
		p.await()
	}
	r.accountConn.ResetConnectBackoff()
	r.messagingConn.ResetConnectBackoff()
	if !r.full {
		r.expire()
	}
	var rest [5]int
	require.Eventually(r.t, func() bool {
		err := r.sql.QueryRow(r.t.Context(), restSQL).Scan(&rest[0], &rest[1], &rest[2], &rest[3], &rest[4])
		require.NoError(r.t, err)
		return rest == [5]int{}
	}, soon, 20*time.Millisecond, "nothing is left to do: fan-outs, chunks, due messages, unpublished events, open messages %v", &rest)
}

// expire ends every lease. The small run does so for the dead; a zombie's in any run.
func (r *trial) expire() {
	r.t.Helper()
	for _, table := range []string{"dispatch_chunks", "fanout_jobs"} {
		_, err := r.sql.Exec(r.t.Context(), "UPDATE "+table+" SET lease_until = now() - interval '1 millisecond' WHERE lease_until > now()")
		require.NoError(r.t, err)
	}
}
