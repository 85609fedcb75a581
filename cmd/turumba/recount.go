package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/google/uuid"

	"github.com/turumba/turumba/kit/process"
	"github.com/turumba/turumba/services/messaging/postgres"
)

// recountConfig is what `recount` takes.
type recountConfig struct {
	Operator
	Account string `env:"TURUMBA_ACCOUNT" flag:"account" help:"id of the one account whose sends are recounted; default: all"`
	DryRun  bool   `env:"TURUMBA_DRY_RUN" flag:"dry-run" help:"tell what is wrong and change nothing"`
}

// Validate reports what Load cannot see by the types.
func (c recountConfig) Validate() error {
	if c.Account == "" {
		return nil
	}
	if _, err := uuid.Parse(c.Account); err != nil {
		return errors.New("--account is not the id of an account")
	}
	return nil
}

// recountReport is what `recount` found.
type recountReport struct {
	Looked   int                   `json:"looked_at"`
	Wrong    []*postgres.Recounted `json:"wrong"`
	Repaired int                   `json:"repaired"`
	Failed   []string              `json:"failed"`
}

// recount puts the counters of sends right from their rows, while everything runs.
func recount(ctx context.Context, environ, args []string, stdout, stderr io.Writer) int {
	return process.Main(ctx, environ, args, stdout, stderr, func(ctx context.Context, cfg recountConfig) error {
		s, done, err := cfg.store(ctx)
		if err != nil {
			return err
		}
		defer done()
		r, err := recountSends(ctx, s, cfg)
		if err != nil {
			return err
		}
		if cfg.JSON {
			err = printJSON(stdout, r)
		} else {
			r.print(stdout)
		}
		if len(r.Failed) > 0 {
			return errors.Join(err, fmt.Errorf("%d sends could not be recounted; run it again", len(r.Failed)))
		}
		return err
	})
}

// recountPage is how many sends are looked up at a time.
const recountPage = 500

func recountSends(ctx context.Context, s *postgres.Store, cfg recountConfig) (recountReport, error) {
	r := recountReport{Wrong: []*postgres.Recounted{}, Failed: []string{}}
	for after := uuid.Nil.String(); ; {
		page, err := s.SendsAfter(ctx, cfg.Account, after, recountPage)
		if err != nil || len(page) == 0 {
			return r, err
		}
		for _, ref := range page {
			found, err := s.Recount(ctx, ref, cfg.DryRun)
			if ctx.Err() != nil {
				return r, ctx.Err()
			}
			r.note(ref, found, err)
		}
		after = page[len(page)-1].ID
	}
}

func (r *recountReport) note(ref postgres.SendRef, found *postgres.Recounted, err error) {
	r.Looked++
	switch {
	case err != nil:
		r.Failed = append(r.Failed, ref.ID)
	case found != nil && found.Differs():
		r.Wrong = append(r.Wrong, found)
		if found.Repaired {
			r.Repaired++
		}
	}
}

func (r *recountReport) print(w io.Writer) {
	for _, s := range r.Wrong {
		fmt.Fprintf(w, "group message %s of account %s: %s\n", s.ID, s.AccountID, differences(s.Counted, s.Rows))
	}
	for _, id := range r.Failed {
		fmt.Fprintf(w, "group message %s: could not be recounted\n", id)
	}
	fmt.Fprintf(w, "%d group messages looked at, %d wrong, %d repaired\n", r.Looked, len(r.Wrong), r.Repaired)
}

// differences names the counters that were wrong.
func differences(counted, rows postgres.SendCounters) string {
	var parts []string
	for _, c := range []struct {
		name      string
		was, want int32
	}{
		{"total", counted.Total, rows.Total},
		{"pending", counted.Pending, rows.Pending},
		{"sent", counted.Sent, rows.Sent},
		{"failed", counted.Failed, rows.Failed},
		{"cancelled", counted.Cancelled, rows.Cancelled},
		{"unknown", counted.Unknown, rows.Unknown},
		{"skipped", counted.Skipped, rows.Skipped},
		{"delivered", counted.Delivered, rows.Delivered},
	} {
		if c.was != c.want {
			parts = append(parts, fmt.Sprintf("%s %d, rows %d", c.name, c.was, c.want))
		}
	}
	return strings.Join(parts, "; ")
}
