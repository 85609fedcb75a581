package demo

import (
	"context"
	"net/http"
	"time"

	"github.com/turumba/turumba/sim"
)

// cancel stops a campaign when half of it has been sent.
func (t *tour) cancel(ctx context.Context, s *TourStep) error {
	g, err := t.sendGroup(ctx, t.newsletter(t.slow))
	if err != nil {
		return err
	}
	accepted := g.UpdatedAt
	half := t.foreseen.Recipients / 2
	if g, err = t.follow(ctx, g.ID, t.cfg.Contacts, func(g group) bool { return g.Sent >= half }); err != nil {
		return err
	}
	s.Cancel = &CancelFigures{SentBefore: g.Sent}
	t.say("   %d of %d have been sent", g.Sent, g.Total)
	if err := t.api.call(ctx, http.MethodPost, "/v1/group-messages/"+g.ID+"/cancel", nil, &g); err != nil {
		return err
	}
	cancelled := g.UpdatedAt
	if g, err = t.follow(ctx, g.ID, t.cfg.Contacts, ended); err != nil {
		return err
	}
	if _, err := t.settleGroup(ctx, s, g, accepted); err != nil {
		return err
	}
	if err := t.stopped(s, cancelled); err != nil {
		return err
	}
	t.expect(s, g.Status == "cancelled", "it is %s", g.Status)
	t.expect(s, s.Cancelled > 0, "nothing was left to cancel")
	t.expect(s, s.Sent >= s.Cancel.SentBefore, "%d were sent before the cancel, and %d after it", s.Cancel.SentBefore, s.Sent)
	return nil
}

// stopped reads from the journal how long after a cancel the provider took messages.
func (t *tour) stopped(s *TourStep, cancelled time.Time) error {
	err := t.journal(func(r sim.Record) {
		if late := r.Time.Sub(cancelled); r.N > s.since && late > 0 {
			s.Cancel.StoppedAfterMS = late.Seconds() * 1000
		}
	})
	t.say("   the provider took the last one %.0f ms after the cancel", s.Cancel.StoppedAfterMS)
	return err
}

// resend sends the SMS campaign again to those whom it failed to reach.
func (t *tour) resend(ctx context.Context, s *TourStep) error {
	var g group
	if err := t.api.call(ctx, http.MethodPost, "/v1/group-messages/"+t.sms.ID+"/resend", nil, &g); err != nil {
		return err
	}
	accepted := g.UpdatedAt
	g, err := t.follow(ctx, g.ID, t.sms.Failed, ended)
	if err != nil {
		return err
	}
	s.Resend = &ResendFigures{FailedBefore: t.sms.Failed}
	rows, err := t.settleGroup(ctx, s, g, accepted)
	if err != nil {
		return err
	}
	before := map[string]bool{} // the address of each message of the first send: whether it was sent
	for _, r := range t.smsRows {
		before[r.Address] = r.sent()
	}
	for _, r := range rows {
		if before[r.Address] && r.sent() {
			s.Resend.SentTwice++
		}
	}
	t.say("   %d had failed; %d got it now, %d for the second time", t.sms.Failed, s.Sent, s.Resend.SentTwice)
	t.expect(s, s.Sent == t.sms.Failed-t.sms.Unknown, "%d had failed, and %d were sent again", t.sms.Failed-t.sms.Unknown, s.Sent)
	t.expect(s, s.Resend.SentTwice == 0, "%d got it who had got it before", s.Resend.SentTwice)
	return nil
}
