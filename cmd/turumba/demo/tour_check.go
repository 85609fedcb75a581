package demo

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"time"

	"github.com/turumba/turumba/sim"
)

// row is the part of a message that the tour reads.
type row struct {
	ID      string    `json:"id"`
	Address string    `json:"delivery_address"`
	Status  string    `json:"status"`
	Created time.Time `json:"created_at"`
	Sent    time.Time `json:"sent_at"`
	Error   struct {
		Code string `json:"code"`
	} `json:"error"`
}

// rows lists all messages that the filters find.
func (t *tour) rows(ctx context.Context, filters ...string) ([]row, error) {
	var all []row
	q := url.Values{"filter": filters, "limit": {"1000"}}
	for {
		var page struct {
			Data []row
			Meta struct {
				Next string `json:"next_page_token"`
			}
		}
		if err := t.api.call(ctx, http.MethodGet, "/v1/messages?"+q.Encode(), nil, &page); err != nil {
			return nil, err
		}
		all = append(all, page.Data...)
		if page.Meta.Next == "" {
			return all, nil
		}
		q.Set("page_token", page.Meta.Next)
	}
}

// groupRows are the messages of a send.
func (t *tour) groupRows(ctx context.Context, id string) ([]row, error) {
	return t.rows(ctx, "group_message_id:eq:"+id)
}

// count fills in the totals by the messages themselves.
func (s *TourStep) count(rows []row) {
	s.Accepted = len(rows)
	for _, r := range rows {
		switch r.Status {
		case "sent", "delivered":
			s.Sent++
		case "permanently_failed":
			s.Failed++
			if r.unknown() {
				s.Unknown++
			}
		case "cancelled":
			s.Cancelled++
		}
	}
}

func (r row) unknown() bool { return r.Error.Code == "outcome_unknown" }

func (r row) sent() bool { return r.Status == "sent" || r.Status == "delivered" }

// settleGroup holds the counters of a send, its messages and the provider's journal
// against each other.
func (t *tour) settleGroup(ctx context.Context, s *TourStep, g group, accepted time.Time) ([]row, error) {
	rows, err := t.groupRows(ctx, g.ID)
	if err != nil {
		return nil, err
	}
	s.count(rows)
	s.Skipped = g.Skipped
	for _, c := range []struct {
		name          string
		counter, rows int
	}{
		{"accepted", g.Total, s.Accepted},
		{"sent", g.Sent, s.Sent},
		{"failed", g.Failed, s.Failed},
		{"unknown", g.Unknown, s.Unknown},
		{"cancelled", g.Cancelled, s.Cancelled},
	} {
		t.expect(s, c.counter == c.rows, "the counter of %s is %d, the messages are %d", c.name, c.counter, c.rows)
	}
	if g.CompletedAt != nil {
		s.rate(g.CompletedAt.Sub(accepted).Seconds())
	}
	return rows, t.settle(s, rows)
}

// settle holds the messages of a step against what the provider took since it began, and
// prints the figures. The OTP and the campaign around it tell each other's apart by its address.
func (t *tour) settle(s *TourStep, rows []row) error {
	t.expect(s, s.Accepted == s.Sent+s.Failed+s.Cancelled, "%d accepted are not %d sent + %d failed + %d cancelled", s.Accepted, s.Sent, s.Failed, s.Cancelled)
	taken := map[string]int{}
	err := t.journal(func(r sim.Record) {
		if r.N > s.since && (r.To == otpPhone) == (s.OTP != nil) {
			taken[r.To]++
		}
	})
	if err != nil {
		return err
	}
	s.ReceivedDistinct = len(taken)
	for _, n := range taken {
		s.ReceivedDuplicates += n - 1
	}
	lost := 0
	for _, r := range rows {
		if r.sent() && taken[r.Address] == 0 {
			lost++
		}
		if r.sent() || r.unknown() {
			delete(taken, r.Address)
		}
	}
	t.expect(s, lost == 0, "%d messages were sent and are not in the provider's journal", lost)
	t.expect(s, len(taken) == 0, "the provider took messages for %d recipients that were not sent", len(taken))
	t.expect(s, s.ReceivedDuplicates == 0, "the provider took %d messages twice", s.ReceivedDuplicates)
	t.print(s)
	return nil
}

// journal calls each with every record of the provider.
func (t *tour) journal(each func(sim.Record)) error {
	file, err := os.Open(t.cfg.Journal)
	if err != nil {
		return fmt.Errorf("read the provider's journal: %w", err)
	}
	defer func() { _ = file.Close() }() // it was only read
	for r, err := range sim.Records(file) {
		if errors.Is(err, sim.ErrTorn) {
			return nil // it is being written, and was not answered yet
		}
		if err != nil {
			return fmt.Errorf("read the provider's journal: %w", err)
		}
		each(r)
	}
	return nil
}

// journalLength is the number of the provider's last record.
func (t *tour) journalLength() (n int64, err error) {
	return n, t.journal(func(r sim.Record) { n = r.N })
}
