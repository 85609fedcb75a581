package postgres

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/pg/pgtest"
	"github.com/turumba/turumba/services/messaging"
	"github.com/turumba/turumba/services/messaging/channel"
)

// watchCounters lets no transaction commit that leaves a send's counters different
// from its rows, one of them negative, or a message on a way that the graph does
// not have. `sending` is derived, so a step may pass through it.
const watchCounters = `
CREATE SEQUENCE checked_commits;
CREATE FUNCTION check_counters() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$
DECLARE
	of_group uuid := CASE TG_TABLE_NAME WHEN 'group_messages' THEN NEW.id ELSE (to_jsonb(NEW) ->> 'group_message_id')::uuid END;
	drift text;
BEGIN
	PERFORM nextval('checked_commits');
	SELECT format('counters %s/%s/%s/%s/%s/%s, rows %s/%s/%s/%s/%s/%s', g.total_recipients, g.pending_count, g.sent_count, g.failed_count, g.cancelled_count, g.unknown_count,
			r.total, r.pending, r.sent, r.failed, r.cancelled, r.unknown) INTO drift
	FROM group_messages g CROSS JOIN LATERAL (
		SELECT count(*) AS total, count(*) FILTER (WHERE status IN ('scheduled', 'queued', 'sending', 'failed')) AS pending,
			count(*) FILTER (WHERE status IN ('sent', 'delivered')) AS sent, count(*) FILTER (WHERE status = 'permanently_failed') AS failed,
			count(*) FILTER (WHERE status = 'cancelled') AS cancelled,
			count(*) FILTER (WHERE status = 'permanently_failed' AND error_code = 'outcome_unknown') AS unknown
		FROM messages WHERE group_message_id = g.id) AS r
	WHERE g.id = of_group AND ((g.total_recipients, g.pending_count, g.sent_count, g.failed_count, g.cancelled_count, g.unknown_count)
		IS DISTINCT FROM (r.total::int, r.pending::int, r.sent::int, r.failed::int, r.cancelled::int, r.unknown::int)
		OR least(g.total_recipients, g.pending_count, g.sent_count, g.failed_count, g.cancelled_count, g.unknown_count) < 0
		OR g.total_recipients <> g.pending_count + g.sent_count + g.failed_count + g.cancelled_count);
	IF drift IS NOT NULL THEN
		RAISE EXCEPTION 'drift of %: %', of_group, drift;
	END IF;
	RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER check_counters AFTER INSERT OR UPDATE ON group_messages DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION check_counters();
CREATE CONSTRAINT TRIGGER check_counters AFTER INSERT OR UPDATE ON messages DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION check_counters();

CREATE FUNCTION check_graph() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF NOT (message_status_allowed(OLD.status, NEW.status)
		OR message_status_allowed(OLD.status, 'sending') AND message_status_allowed('sending', NEW.status)) THEN
		RAISE EXCEPTION 'illegal step from % to %', OLD.status, NEW.status;
	END IF;
	RETURN NULL;
END $$;
CREATE TRIGGER check_graph AFTER UPDATE ON messages FOR EACH ROW WHEN (OLD.status <> NEW.status) EXECUTE FUNCTION check_graph();
`

const (
	historySends      = 50
	historyRecipients = 40
	historyWriters    = 8
	historySteps      = 10_000
)

// TestCountersNeverDrift is catalogue F-70: ten thousand random steps over fifty
// sends by eight hands, legal ones, illegal ones and ones that come twice, through
// the functions that the pipeline and the API use. Each commit is checked.
func TestCountersNeverDrift(t *testing.T) {
	t.Parallel()
	d := pgtest.New(t, Migrations()...)
	h := newHistory(t, d)
	h.exec(watchCounters)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	var writers sync.WaitGroup
	for i := range historyWriters {
		writers.Go(func() { h.write(rand.New(rand.NewPCG(seed, uint64(i)))) })
	}
	writers.Wait()
	require.Empty(t, h.problems)
	problems, err := CheckLedger(t.Context(), h.admin)
	require.NoError(t, err)
	require.Empty(t, problems)
	var checked, lifted, moved int
	require.NoError(t, h.admin.QueryRow(t.Context(), "SELECT (SELECT last_value FROM checked_commits), (SELECT count(*) FROM message_attempts WHERE outcome = 'reversal'), (SELECT count(*) FROM messages WHERE status <> 'queued')").
		Scan(&checked, &lifted, &moved))
	require.Positive(t, lifted, "no unknown message was lifted: the history is too tame")
	t.Logf("%d steps, %d refused as illegal, %d rows checked at their commit, %d of %d messages moved, %d lifted, %d deadlocks",
		h.steps.Load(), h.refused.Load(), checked, moved, historySends*historyRecipients, lifted, h.deadlocks.Load())
}

// history makes random steps.
type history struct {
	t         *testing.T
	admin     *pgxpool.Pool
	api, work *Store
	channel   map[string]*messaging.Channel // by account
	sends     []*messaging.GroupMessage
	steps     atomic.Int64
	refused   atomic.Int64
	deadlocks atomic.Int64

	mu       sync.Mutex
	open     []*Fanout
	seen     []ChunkMessage    // messages that were claimed, to be cancelled, retried, deleted
	owners   map[string]string // their accounts
	past     []told            // what was told once, to be told again
	problems []string
}

// told is a call with outcomes.
type told struct {
	chunk    Chunk
	outcomes []messaging.Outcome
}

func newHistory(t *testing.T, d *pgtest.Database) *history {
	t.Helper()
	h := &history{t: t, channel: map[string]*messaging.Channel{}, owners: map[string]string{}}
	var err error
	h.admin, err = pgxpool.New(t.Context(), d.URL)
	require.NoError(t, err)
	t.Cleanup(h.admin.Close)
	h.api, err = New(d.Open(t, pg.RoleAPI), make([]byte, 32), func() {})
	require.NoError(t, err)
	h.work, err = New(d.Open(t, pg.RoleWorker), make([]byte, 32), func() {})
	require.NoError(t, err)
	require.NoError(t, h.work.Upkeep(t.Context()))
	for range 3 {
		h.addAccount()
	}
	for len(h.sends) < historySends {
		h.addSend()
	}
	return h
}

func (h *history) exec(sql string) {
	h.t.Helper()
	_, err := h.admin.Exec(h.t.Context(), sql)
	require.NoError(h.t, err)
}

func (h *history) addAccount() {
	h.t.Helper()
	account := messaging.NewID()
	c := &messaging.Channel{
		ID: messaging.NewID(), AccountID: account, Name: "Office", ChannelType: messaging.TypeEmail, Provider: messaging.ProviderSMTP,
		Status: messaging.ChannelConnected, IsEnabled: true, RetryCount: 2, RetryInterval: 1, Connections: 4, OnUnknown: messaging.UnknownHold,
		Credentials: messaging.Credentials{SMTP: &messaging.SMTP{Host: "mail.example.org", Port: 587, FromEmail: "office@example.org"}},
		Secrets:     map[string]messaging.Secret{}, Sealed: map[string][]byte{},
	}
	template := &messaging.Template{ID: account, AccountID: account, Name: "T", Body: "Hello", IsActive: true}
	require.NoError(h.t, template.Prepare())
	require.NoError(h.t, h.api.DB().InTx(h.t.Context(), []string{account}, func(tx *pg.Tx) error {
		return errors.Join(h.api.CreateChannel(h.t.Context(), tx, c, nil), h.api.CreateTemplate(h.t.Context(), tx, template))
	}))
	h.channel[account] = c
}

// addSend starts a send and leaves its recipients to be written.
func (h *history) addSend() {
	h.t.Helper()
	ctx := h.t.Context()
	for account, c := range h.channel {
		g := &messaging.GroupMessage{
			ID: messaging.NewID(), AccountID: account, ChannelID: c.ID, TemplateID: account, Status: messaging.GroupQueued, ContactGroupIDs: []string{messaging.NewID()},
		}
		require.NoError(h.t, h.api.DB().InTx(ctx, []string{account}, func(tx *pg.Tx) error { return h.api.CreateGroupMessage(ctx, tx, g, nil, messaging.Allowance{}) }))
		job, err := h.work.ClaimFanout(ctx, time.Hour)
		require.NoError(h.t, err)
		f, err := h.work.StartFanout(ctx, *job, time.Hour)
		require.NoError(h.t, err)
		h.sends, h.open = append(h.sends, f.Group), append(h.open, f)
		return
	}
}

// write makes steps until there are enough.
func (h *history) write(r *rand.Rand) {
	ways := []struct {
		weight int
		take   func(context.Context, *rand.Rand) error
	}{
		{30, h.dispatch}, {15, h.tellAgain}, {15, h.recover}, {8, h.cancel}, {25, h.retry}, {3, h.delete}, {15, h.release}, {15, h.fanOut}, {1, h.cancelSend},
	}
	total := 0
	for _, w := range ways {
		total += w.weight
	}
	for h.steps.Load() < historySteps {
		n := r.IntN(total)
		for _, w := range ways {
			if n -= w.weight; n < 0 {
				h.note(w.take(h.t.Context(), r))
				break
			}
		}
	}
}

// note keeps errors that must not be. Illegal steps are refused, and one of two
// that lock the same rows crosswise is rolled back by the server.
func (h *history) note(err error) {
	var e *pgconn.PgError
	switch {
	case err == nil:
	case errors.Is(err, ErrFenced), errors.Is(err, ErrStopped), apierr.HasReason(err, errorv1.Reason_REASON_INVALID_STATE), apierr.HasReason(err, errorv1.Reason_REASON_NOT_FOUND):
		h.refused.Add(1)
	case errors.As(err, &e) && e.Code == "40P01":
		h.deadlocks.Add(1)
	default:
		h.mu.Lock()
		defer h.mu.Unlock()
		h.problems = append(h.problems, err.Error())
		h.steps.Add(historySteps) // one is enough
	}
}

// fanOut writes a stretch of recipients of some send, or says that it was the last.
func (h *history) fanOut(ctx context.Context, r *rand.Rand) error {
	h.mu.Lock()
	if len(h.open) == 0 {
		h.mu.Unlock()
		return nil
	}
	i := r.IntN(len(h.open))
	f := h.open[i]
	h.open = append(h.open[:i], h.open[i+1:]...)
	h.mu.Unlock()
	left := historyRecipients - int(f.Group.Total)
	b := FanoutBatch{Cursor: messaging.NewID()}
	for range min(left, 1+r.IntN(20)) {
		contact := messaging.NewID()
		b.Messages = append(b.Messages, messaging.Addressee{ContactID: contact, Address: contact + "@example.org"})
	}
	h.steps.Add(int64(len(b.Messages)))
	_, err := h.work.WriteFanout(ctx, f, b, 0)
	if left == len(b.Messages) || errors.Is(err, ErrStopped) {
		return errors.Join(err, h.work.FinishFanout(ctx, f))
	}
	h.mu.Lock()
	h.open = append(h.open, f)
	h.mu.Unlock()
	return err
}

// dispatch claims a chunk and passes the gate for a window or two; sometimes it dies
// on the way, sometimes its lease is over before it began.
func (h *history) dispatch(ctx context.Context, r *rand.Rand) error {
	lease := time.Duration(r.IntN(2)) * time.Hour
	c, err := h.work.ClaimChunk(ctx, LaneBulk, []string{messaging.TypeEmail}, Skip{}, lease)
	if err != nil || c == nil {
		return err
	}
	w, err := h.work.ChunkWork(ctx, c)
	if err != nil {
		return err
	}
	if w.Cancelled {
		return h.work.EndChunk(ctx, c, nil, Rest{Status: messaging.MessageCancelled})
	}
	messages, err := h.work.ChunkMessages(ctx, c, c.CallingUpto)
	if err != nil {
		return err
	}
	h.remember(c, messages)
	var outcomes []messaging.Outcome
	for range 1 + r.IntN(2) {
		upto := min(c.CallingUpto+1+r.IntN(30), len(c.MessageIDs))
		g, err := h.work.PassGate(ctx, c, upto, h.channel[c.AccountID].SendEpoch, lease, nil, outcomes)
		if err != nil {
			return err
		}
		outcomes = nil
		quiet := r.IntN(2) == 0 // all are sent: they are stored and counted in one statement
		for _, m := range messages {
			if g.Open && m.Ordinal < upto && !g.Withdrawn[m.ID] {
				outcomes = append(outcomes, h.outcome(r, c, m, quiet))
			}
		}
	}
	h.tell(c, outcomes)
	switch r.IntN(8) {
	case 0: // it dies: whoever finds the lease over decides
		h.exec("UPDATE dispatch_chunks SET lease_until = now() WHERE id = '" + c.ID + "'")
		return nil
	case 1:
		return h.work.EndChunk(ctx, c, outcomes, Rest{Status: messaging.MessagePermanentlyFailed, Code: messaging.CodeChannelDeleted})
	}
	return h.work.EndChunk(ctx, c, outcomes, Rest{})
}

// outcome decides on a random answer of a provider, or on one that took the message;
// nothing waits.
func (h *history) outcome(r *rand.Rand, c *Chunk, m ChunkMessage, sent bool) messaging.Outcome {
	classes := []channel.Class{
		channel.ClassOK, channel.ClassOK, channel.ClassTransient, channel.ClassRateLimited, channel.ClassPermanentRecipient,
		channel.ClassPermanentContent, channel.ClassConfig, channel.ClassBilling, channel.ClassUnknown, channel.ClassDeferred, channel.ClassRefused,
	}
	if sent {
		classes = classes[:1]
	}
	o := messaging.Decide(channel.Result{Class: classes[r.IntN(len(classes))]}, h.channel[c.AccountID], m.Attempts, 0)
	o.MessageID, o.Ordinal, o.RetryIn = m.ID, m.Ordinal, 0
	return o
}

func (h *history) remember(c *Chunk, messages []ChunkMessage) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, m := range messages {
		if h.owners[m.ID] == "" {
			h.owners[m.ID] = c.AccountID
			h.seen = append(h.seen, m)
		}
	}
}

func (h *history) tell(c *Chunk, outcomes []messaging.Outcome) {
	h.steps.Add(int64(len(outcomes)))
	h.mu.Lock()
	defer h.mu.Unlock()
	h.past = append(h.past, told{*c, outcomes})
}

// tellAgain repeats outcomes that were told, or tells others for the same calls: a
// zombie whose chunk has long been somebody else's.
func (h *history) tellAgain(ctx context.Context, r *rand.Rand) error {
	h.mu.Lock()
	if len(h.past) == 0 {
		h.mu.Unlock()
		return nil
	}
	p := h.past[r.IntN(len(h.past))]
	h.mu.Unlock()
	outcomes := append([]messaging.Outcome(nil), p.outcomes...)
	if r.IntN(2) == 0 {
		for i, o := range outcomes {
			outcomes[i] = h.outcome(r, &p.chunk, ChunkMessage{ID: o.MessageID, Ordinal: o.Ordinal, Attempts: int32(r.IntN(4))}, false)
		}
	}
	h.steps.Add(int64(len(outcomes)))
	if r.IntN(2) == 0 {
		return h.work.EndChunk(ctx, &p.chunk, outcomes, Rest{Status: messaging.MessageCancelled})
	}
	_, err := h.work.PassGate(ctx, &p.chunk, p.chunk.CallingUpto, 1, time.Hour, nil, outcomes)
	return err
}

func (h *history) recover(ctx context.Context, _ *rand.Rand) error {
	chunks, err := h.work.ExpiredChunks(ctx, 3)
	for _, c := range chunks {
		unknown, rerr := h.work.RecoverChunk(ctx, c)
		h.steps.Add(int64(unknown))
		err = errors.Join(err, rerr)
	}
	return err
}

func (h *history) release(ctx context.Context, _ *rand.Rand) error {
	_, err := h.work.ReleaseDue(ctx)
	return err
}

// some picks a message that was claimed once.
func (h *history) some(r *rand.Rand) (scope []string, id string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.seen) == 0 {
		return []string{messaging.NewID()}, messaging.NewID()
	}
	id = h.seen[r.IntN(len(h.seen))].ID
	return []string{h.owners[id]}, id
}

func (h *history) cancel(ctx context.Context, r *rand.Rand) error {
	h.steps.Add(1)
	scope, id := h.some(r)
	return h.api.DB().InTx(ctx, scope, func(tx *pg.Tx) error {
		_, err := h.api.CancelMessage(ctx, tx, scope, id)
		return err
	})
}

func (h *history) retry(ctx context.Context, r *rand.Rand) error {
	h.steps.Add(1)
	scope, id := h.some(r)
	return h.api.DB().InTx(ctx, scope, func(tx *pg.Tx) error {
		_, err := h.api.RetryMessage(ctx, tx, scope, id)
		return err
	})
}

func (h *history) delete(ctx context.Context, r *rand.Rand) error {
	h.steps.Add(1)
	scope, id := h.some(r)
	return h.api.DeleteMessage(ctx, scope, id)
}

// cancelSend cancels one of the first ten sends: the others go on.
func (h *history) cancelSend(ctx context.Context, r *rand.Rand) error {
	h.steps.Add(1)
	g := h.sends[r.IntN(10)]
	scope := []string{g.AccountID}
	return h.api.DB().InTx(ctx, scope, func(tx *pg.Tx) error {
		_, err := h.api.CancelGroupMessage(ctx, tx, scope, g.ID)
		return err
	})
}
