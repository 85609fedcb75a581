package demo

import (
	"context"
	"fmt"
	"net/http"
	"time"
)

// batch sends as many messages as one call takes.
func (t *tour) batch(ctx context.Context, s *TourStep) error {
	items := make([]map[string]any, batchSize)
	for i := range items {
		items[i] = map[string]any{
			"channel_id": t.office, "delivery_address": fmt.Sprintf("notice%04d@demo.example", i+1),
			"subject": "Your place", "message_body": fmt.Sprintf("Your place in the hall is %d.", i+1),
		}
	}
	var answer struct {
		Results []struct {
			Message *row
			Detail  string
		}
	}
	if err := t.api.call(ctx, http.MethodPost, "/v1/messages/batch", map[string]any{"messages": items}, &answer); err != nil {
		return err
	}
	var first, last time.Time
	ids := map[string]bool{}
	for i, result := range answer.Results {
		if result.Message == nil {
			t.expect(s, false, "item %d was refused: %s", i, result.Detail)
			continue
		}
		if at := result.Message.Created; i == 0 || at.Before(first) {
			first = at
		}
		if at := result.Message.Created; at.After(last) {
			last = at
		}
		ids[result.Message.ID] = true
	}
	t.say("   %d results, %d messages accepted", len(answer.Results), len(ids))
	rows, err := t.settledRows(ctx, first, last, ids)
	if err != nil {
		return err
	}
	s.count(rows)
	s.rate(lastSent(rows).Sub(first).Seconds())
	t.expect(s, len(answer.Results) == len(items), "%d items have %d results", len(items), len(answer.Results))
	t.expect(s, len(rows) == len(ids), "%d were accepted, and %d are listed", len(ids), len(rows))
	t.expect(s, s.Sent == len(items), "%d of %d were sent", s.Sent, len(items))
	return t.settle(s, rows)
}

// settledRows lists the messages of a batch, made between two times, once all have
// their outcome.
func (t *tour) settledRows(ctx context.Context, from, to time.Time, ids map[string]bool) (rows []row, err error) {
	within := fmt.Sprintf("created_at:range:%s,%s", from.Format(time.RFC3339Nano), to.Format(time.RFC3339Nano))
	err = t.until(ctx, "a batch to be sent", func() (bool, error) {
		all, err := t.rows(ctx, "channel_id:eq:"+t.office, within)
		if err != nil {
			return false, err
		}
		rows = rows[:0]
		for _, r := range all {
			if ids[r.ID] && !r.settled() {
				return false, nil
			}
			if ids[r.ID] {
				rows = append(rows, r)
			}
		}
		return true, nil
	})
	return rows, err
}

func lastSent(rows []row) (last time.Time) {
	for _, r := range rows {
		if r.Sent.After(last) {
			last = r.Sent
		}
	}
	return last
}
