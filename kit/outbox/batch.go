package outbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"go.opentelemetry.io/otel/trace"

	"github.com/turumba/turumba/kit/bus"
	"github.com/turumba/turumba/kit/failpoint"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/telemetry"
)

// batchSettings also let the server end a transaction whose relay was frozen, so
// that its rows are free for another one. The statistics say that nearly no row
// is unpublished, and a planner who believes them sorts the whole of a backlog
// for every batch: it must take the order from the partial indexes.
func batchSettings() []pg.Setting {
	return []pg.Setting{
		pg.Set("idle_in_transaction_session_timeout", "15s"), pg.Set("statement_timeout", "10s"),
		pg.Set("enable_sort", "off"), pg.Set("enable_seqscan", "off"),
	}
}

// claimSQL goes by state, never by a place in an order: a transaction that
// commits late leaves its rows anywhere. The bound on created_at keeps the
// partitions of coming days out of the plan.
const claimSQL = `
	SELECT id::text, created_at, event_type, aggregate_type, aggregate_id, traceparent, payload::text, attempts
	FROM outbox_events
	WHERE published_at IS NULL AND due_at <= now() AND created_at < now() + interval '1 day'
	ORDER BY due_at
	LIMIT $1
	FOR UPDATE SKIP LOCKED`

const markSQL = `
	UPDATE outbox_events SET published_at = clock_timestamp(), attempts = attempts + 1, last_error = NULL
	WHERE id = ANY($1::uuid[]) AND created_at BETWEEN $2 AND $3`

// postponeSQL waits 1, 2, 4, … at most 30 s, with jitter.
const postponeSQL = `
	UPDATE outbox_events SET attempts = attempts + 1, last_error = left($4, 500),
		due_at = clock_timestamp() + least(30, power(2, least(attempts, 5))) * (0.5 + random() / 2) * interval '1 second'
	WHERE id = ANY($1::uuid[]) AND created_at BETWEEN $2 AND $3`

// row is a claimed event.
type row struct {
	ID            string
	CreatedAt     time.Time
	EventType     string
	AggregateType string
	AggregateID   string
	Traceparent   string
	Payload       []byte
	Attempts      int
}

// batch claims, publishes and marks one batch in one transaction, and returns
// the number of rows claimed. After an error nothing is marked, and what was
// published will be published again. Once claimed, a batch is finished even if
// ctx ends.
func (r *Relay) batch(ctx context.Context) (claimed int, err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), batchTimeout)
	defer cancel()
	var result results
	err = r.DB.With(batchSettings()...).InTx(ctx, nil, func(tx *pg.Tx) error {
		rows, err := r.claim(ctx, tx)
		if err != nil || len(rows) == 0 {
			return err
		}
		if err := failpoint.Hit(ctx, failpoint.RelayAfterClaim); err != nil {
			return err
		}
		result = sortResults(rows, r.publish(ctx, rows))
		if result.away != nil {
			return result.away
		}
		if err := failpoint.Hit(ctx, failpoint.RelayAfterConfirm); err != nil {
			return err
		}
		claimed = len(rows)
		return result.mark(ctx, tx)
	})
	if err != nil {
		return 0, fmt.Errorf("outbox batch: %w", err)
	}
	r.report(ctx, result)
	return claimed, nil
}

func (r *Relay) claim(ctx context.Context, tx pgx.Tx) ([]row, error) {
	found, err := tx.Query(ctx, claimSQL, r.BatchSize)
	if err != nil {
		return nil, fmt.Errorf("claim outbox rows: %w", err)
	}
	rows, err := pgx.CollectRows(found, pgx.RowToStructByPos[row])
	if err != nil {
		return nil, fmt.Errorf("claim outbox rows: %w", err)
	}
	return rows, nil
}

func (r *Relay) publish(ctx context.Context, rows []row) []error {
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	messages := make([]bus.Message, len(rows))
	for i := range rows {
		messages[i] = rows[i].message(r.NeedsConsumer(rows[i].EventType))
	}
	return r.Bus.Publish(ctx, messages)
}

func (w *row) message(mandatory bool) bus.Message {
	headers := map[string]string{
		bus.HeaderContentType: contentType,
		"event_type":          w.EventType,
		"aggregate_type":      w.AggregateType,
		"aggregate_id":        w.AggregateID,
		"created_at":          w.CreatedAt.UTC().Format(time.RFC3339Nano),
	}
	if w.Traceparent != "" {
		headers["traceparent"] = w.Traceparent
	}
	return bus.Message{ID: w.ID, RoutingKey: w.EventType, Body: w.Payload, Headers: headers, Mandatory: mandatory}
}

// results is what became of a batch.
type results struct {
	confirmed []row
	failed    map[string][]row // by the text of the error
	errs      map[string]error // one error for each text
	away      error            // set if the broker took nothing at all
}

// sortResults separates failures of single rows from a broker that is away. A
// row that the broker did not take while it took others is left as it is and
// comes again at once.
func sortResults(rows []row, errs []error) results {
	res := results{failed: make(map[string][]row), errs: make(map[string]error)}
	unavailable := 0
	for i, err := range errs {
		switch {
		case err == nil:
			res.confirmed = append(res.confirmed, rows[i])
		case errors.Is(err, bus.ErrUnavailable), errors.Is(err, bus.ErrClosed):
			unavailable++
			res.away = err
		default:
			res.failed[err.Error()] = append(res.failed[err.Error()], rows[i])
			res.errs[err.Error()] = err
		}
	}
	if unavailable < len(rows) {
		res.away = nil
	}
	return res
}

// mark writes the results in one round trip.
func (res results) mark(ctx context.Context, tx pgx.Tx) error {
	b := &pgx.Batch{}
	if len(res.confirmed) > 0 {
		ids, from, to := bounds(res.confirmed)
		b.Queue(markSQL, ids, from, to)
	}
	for text, rows := range res.failed {
		ids, from, to := bounds(rows)
		b.Queue(postponeSQL, ids, from, to, text)
	}
	if err := tx.SendBatch(ctx, b).Close(); err != nil {
		return fmt.Errorf("mark outbox rows: %w", err)
	}
	return failpoint.Hit(ctx, failpoint.RelayAfterMark)
}

// bounds returns the ids and the span of created_at, so that the update looks
// only into the partitions concerned.
func bounds(rows []row) (ids []string, from, to time.Time) {
	from, to = rows[0].CreatedAt, rows[0].CreatedAt
	ids = make([]string, len(rows))
	for i, w := range rows {
		ids[i] = w.ID
		if w.CreatedAt.Before(from) {
			from = w.CreatedAt
		}
		if w.CreatedAt.After(to) {
			to = w.CreatedAt
		}
	}
	return ids, from, to
}

// report counts, and logs each kind of failure once per batch and each event
// that has failed ten more times.
func (r *Relay) report(ctx context.Context, res results) {
	r.Metrics.published.Add(float64(len(res.confirmed)))
	now := r.Clock.Now()
	for _, w := range res.confirmed {
		r.Metrics.latency.Observe(max(now.Sub(w.CreatedAt).Seconds(), 0))
		if r.Tracer != nil && telemetry.Sampled(w.Traceparent) {
			_, span := r.Tracer.Start(telemetry.WithTraceparent(ctx, w.Traceparent), "publish "+w.EventType, trace.WithSpanKind(trace.SpanKindProducer), trace.WithTimestamp(w.CreatedAt))
			span.End(trace.WithTimestamp(now))
		}
	}
	for text, rows := range res.failed {
		r.Metrics.failures.WithLabelValues(reason(res.errs[text])).Add(float64(len(rows)))
		r.Logger.LogAttrs(ctx, slog.LevelWarn, "outbox events not published", slog.Int("events", len(rows)),
			slog.String("event_type", rows[0].EventType), slog.String("event_id", rows[0].ID), slog.String("err", text))
		for _, w := range rows {
			if (w.Attempts+1)%alarmAfter == 0 {
				r.Metrics.alarms.Inc()
				r.Logger.LogAttrs(ctx, slog.LevelError, "outbox event keeps failing", slog.String("event_id", w.ID),
					slog.String("event_type", w.EventType), slog.Int("attempts", w.Attempts+1), slog.String("err", text))
			}
		}
	}
}
