package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/turumba/turumba/kit/bus/rabbitmq"
	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/outbox"
	"github.com/turumba/turumba/kit/telemetry"
	"github.com/turumba/turumba/services/messaging/postgres"
	"github.com/turumba/turumba/worker/relay"
)

// review goes through what the broker and the outbox have.
type review struct {
	cfg       dlqConfig
	out       io.Writer
	clock     clock.Clock
	broker    *rabbitmq.DeadLetters // nil without AMQP_URL
	store     *postgres.Store       // nil where only a broker was named
	closeDB   func()
	report    dlqReport
	truncated bool
}

// openReview connects to what is named: the broker by AMQP_URL, the database by
// DATABASE_URL or, without a broker, that of the running turumba.
func openReview(ctx context.Context, cfg dlqConfig, out io.Writer) (*review, error) {
	r := &review{cfg: cfg, out: out, clock: clock.System(), closeDB: func() {}, report: dlqReport{Letters: []deadLetter{}, Failed: []string{}}}
	var err error
	if cfg.AMQPURL == "" {
		r.report.Note = noBroker
	} else if r.broker, err = rabbitmq.OpenDeadLetters(ctx, cfg.AMQPURL.Reveal(), relay.Topology(true, true), rabbitmq.Options{Clock: r.clock, Logger: telemetry.Discard()}); err != nil {
		return nil, fmt.Errorf("AMQP_URL: %w", err)
	}
	if cfg.AMQPURL == "" || cfg.DatabaseURL != "" || cfg.DataDir != "" {
		if r.store, r.closeDB, err = cfg.store(ctx); err != nil {
			r.closeDB = func() {}
			r.close(ctx)
			return nil, err
		}
	}
	return r, nil
}

func (r *review) close(ctx context.Context) {
	if r.broker != nil {
		r.broker.Close(ctx)
	}
	r.closeDB()
}

// list shows everything that is asked for, without contents.
func (r *review) list(ctx context.Context) error {
	if err := r.look(ctx, func(deadLetter) bool { return false }); err != nil {
		return err
	}
	if r.cfg.JSON {
		return printJSON(r.out, r.report)
	}
	return r.table()
}

// maxShown is how much of a content is shown, in bytes.
const maxShown = 64 << 10

// show shows one with its content, which is ids and states if it is one of ours.
func (r *review) show(ctx context.Context) error {
	if r.cfg.ID == "" {
		return errors.New("--id says which one is shown")
	}
	if err := r.look(ctx, func(deadLetter) bool { return false }); err != nil {
		return err
	}
	if len(r.report.Letters) == 0 {
		return fmt.Errorf("there is no dead letter %q", r.cfg.ID)
	}
	for i := range r.report.Letters {
		l := &r.report.Letters[i]
		l.Body = string(l.body[:min(len(l.body), maxShown)])
	}
	if r.cfg.JSON {
		return printJSON(r.out, r.report)
	}
	for _, l := range r.report.Letters {
		fmt.Fprintf(r.out, "id      %q\ntype    %q\nsource  %s\nqueue   %s\nreason  %s\nproblem %s\nsince   %s\nbytes   %d\nbody    %q\n",
			l.ID, l.Type, l.Source, l.Queue, l.Reason, l.Problem, l.Since.UTC().Format(time.RFC3339), l.Bytes, l.Body)
	}
	return nil
}

// redrive gives back what is asked for.
func (r *review) redrive(ctx context.Context) error {
	if r.cfg.ID == "" && r.cfg.Type == "" && !r.cfg.All {
		return errors.New("--id, --type or --all says what is given back")
	}
	r.cfg.Limit = math.MaxInt32 // what is shown is bounded, what is given back is what was asked for
	if err := r.look(ctx, func(deadLetter) bool { return true }); err != nil {
		return err
	}
	r.report.Redriven = len(r.report.Letters) - len(r.report.Failed)
	if r.cfg.JSON {
		if err := printJSON(r.out, r.report); err != nil {
			return err
		}
	} else {
		for _, text := range r.report.Failed {
			fmt.Fprintln(r.out, text)
		}
		fmt.Fprintf(r.out, "%d given back, %d not\n", r.report.Redriven, len(r.report.Failed))
	}
	if len(r.report.Failed) > 0 {
		return fmt.Errorf("%d could not be given back and stay where they are", len(r.report.Failed))
	}
	return nil
}

// look goes through both sources and gives back what redrive says.
func (r *review) look(ctx context.Context, redrive func(deadLetter) bool) error {
	if err := r.lookAtBroker(ctx, redrive); err != nil {
		return err
	}
	return r.lookAtOutbox(ctx, redrive)
}

func (r *review) lookAtBroker(ctx context.Context, redrive func(deadLetter) bool) error {
	if r.broker == nil {
		return nil
	}
	return r.broker.Review(ctx, func(d rabbitmq.DeadLetter) bool {
		l := deadLetter{ID: d.ID, Type: d.RoutingKey, Source: "broker", Queue: d.Queue, Reason: d.Reason, Since: d.Died, body: d.Body}
		if _, err := outbox.Decode(d.Message); err != nil {
			l.Problem = err.Error()
		}
		return r.take(l) && redrive(l)
	}, func(d rabbitmq.DeadLetter, err error) {
		r.report.Failed = append(r.report.Failed, fmt.Sprintf("%q: %v", d.ID, err))
	})
}

func (r *review) lookAtOutbox(ctx context.Context, redrive func(deadLetter) bool) error {
	if r.store == nil {
		return nil
	}
	pool := r.store.DB()
	stuck, err := outbox.StuckEvents(ctx, pool, r.cfg.Limit)
	if err != nil {
		return err
	}
	for _, s := range stuck {
		l := deadLetter{ID: s.EventID, Type: s.EventType, Source: "outbox", Reason: fmt.Sprintf("not published after %d attempts: %s", s.Attempts, s.LastError), Since: s.CreatedAt, body: s.Payload}
		if !r.take(l) || !redrive(l) {
			continue
		}
		if _, err := outbox.TryNow(ctx, pool, s); err != nil {
			r.report.Failed = append(r.report.Failed, fmt.Sprintf("%q: %v", s.EventID, err))
		}
	}
	return nil
}

// take notes one that is asked for, as long as there is room.
func (r *review) take(l deadLetter) bool {
	if (r.cfg.ID != "" && l.ID != r.cfg.ID) || (r.cfg.Type != "" && l.Type != r.cfg.Type) {
		return false
	}
	if len(r.report.Letters) == r.cfg.Limit {
		r.truncated = true
		return false
	}
	l.Bytes = len(l.body)
	if !l.Since.IsZero() {
		l.AgeSeconds = int64(r.clock.Now().Sub(l.Since).Seconds())
	}
	r.report.Letters = append(r.report.Letters, l)
	return true
}

func (r *review) table() error {
	if r.report.Note != "" {
		fmt.Fprintln(r.out, r.report.Note)
	}
	if len(r.report.Letters) == 0 {
		fmt.Fprintln(r.out, "no dead letters")
		return nil
	}
	w := tabwriter.NewWriter(r.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tTYPE\tSOURCE\tQUEUE\tAGE\tREASON")
	for _, l := range r.report.Letters {
		reason := l.Reason
		if l.Problem != "" {
			reason += ": " + l.Problem
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", plain(l.ID), plain(l.Type), l.Source, l.Queue, time.Duration(l.AgeSeconds)*time.Second, plain(reason))
	}
	if r.truncated {
		fmt.Fprintln(w, "…\t(more than --limit)")
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("write the list: %w", err)
	}
	return nil
}

// plain keeps what others wrote from moving the cursor of a terminal.
func plain(s string) string {
	return strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f || (c >= 0x80 && c < 0xa0) {
			return '?'
		}
		return c
	}, s)
}
