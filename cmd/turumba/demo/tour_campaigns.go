package demo

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"time"

	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/sim"
)

func (t *tour) dryRun(ctx context.Context, s *TourStep) error {
	start := t.cfg.Clock.Now()
	if err := t.api.call(ctx, http.MethodPost, "/v1/group-messages/dry-run", t.newsletter(t.office), &s.DryRun); err != nil {
		return err
	}
	s.Seconds = t.cfg.Clock.Now().Sub(start).Seconds()
	t.foreseen = s.DryRun
	t.say("   %d would get it, %d would not (%s)", s.DryRun.Recipients, s.DryRun.SkippedCount, counts(s.DryRun.Skipped))
	for _, sample := range s.DryRun.Samples[:min(1, len(s.DryRun.Samples))] {
		t.say("   to %s: %q", sample.Address, sample.Subject)
	}
	t.expect(s, s.DryRun.Complete, "not all recipients were looked at")
	return t.settle(s, nil) // nothing may have arrived
}

func (t *tour) emailCampaign(ctx context.Context, s *TourStep) error {
	g, accepted, err := t.campaign(ctx, t.newsletter(t.office))
	if err != nil {
		return err
	}
	if _, err := t.settleGroup(ctx, s, g, accepted); err != nil {
		return err
	}
	skipped, err := t.skips(ctx, g.ID)
	if err != nil {
		return err
	}
	t.expect(s, s.Accepted == t.foreseen.Recipients, "the dry run said %d recipients, there are %d", t.foreseen.Recipients, s.Accepted)
	t.expect(s, maps.Equal(skipped, t.foreseen.Skipped), "the dry run said that it would skip %s; it skipped %s", counts(t.foreseen.Skipped), counts(skipped))
	t.expect(s, s.Skipped == t.foreseen.SkippedCount, "the dry run said %d skipped, the counter is %d", t.foreseen.SkippedCount, s.Skipped)
	t.expect(s, s.Sent == s.Accepted, "%d of %d were sent", s.Sent, s.Accepted)
	return nil
}

// campaign sends a draft to its end.
func (t *tour) campaign(ctx context.Context, draft map[string]any) (g group, accepted time.Time, err error) {
	if g, err = t.sendGroup(ctx, draft); err != nil {
		return g, accepted, err
	}
	accepted = g.UpdatedAt
	g, err = t.follow(ctx, g.ID, t.cfg.Contacts, ended)
	return g, accepted, err
}

// skips is how many recipients a send skipped, by reason.
func (t *tour) skips(ctx context.Context, id string) (map[string]int, error) {
	var page struct{ Data []struct{ Reason string } }
	if err := t.api.call(ctx, http.MethodGet, "/v1/group-messages/"+id+"/skipped?limit=1000", nil, &page); err != nil {
		return nil, err
	}
	by := map[string]int{}
	for _, skip := range page.Data {
		by[skip.Reason]++
	}
	return by, nil
}

// smsCampaign is sent on a channel with a rate until an OTP was sent in its midst, and
// then without.
func (t *tour) smsCampaign(ctx context.Context, s *TourStep) error {
	if err := t.cfg.SetFaults(ctx, sim.Fault{Kind: "refused", Rate: 1, To: refusedPhones}); err != nil {
		return err
	}
	g, err := t.sendGroup(ctx, map[string]any{
		"name": "School starts on Monday", "channel_id": t.texts, "contact_group_ids": []string{t.groupID},
		"message_body": "Dear {FIRST_NAME}, school starts on Monday. {ACCOUNT_NAME}",
	})
	if err != nil {
		return err
	}
	accepted := g.UpdatedAt
	if t.sms, err = t.follow(ctx, g.ID, t.cfg.Contacts, func(g group) bool { return g.Sent > 0 }); err != nil {
		return err
	}
	if err := t.play(ctx, step{"otp", "In its midst: a code to one person, by the same channel", t.otp}); err != nil {
		return err
	}
	t.say("\n   the SMS campaign goes on, without a limit of its rate")
	if err := t.api.call(ctx, http.MethodPatch, "/v1/channels/"+t.texts, map[string]any{"rate_limit": nil}, nil); err != nil {
		return err
	}
	if t.sms, err = t.follow(ctx, g.ID, t.cfg.Contacts, ended); err != nil {
		return err
	}
	if err := t.cfg.SetFaults(ctx); err != nil {
		return err
	}
	t.smsRows, err = t.settleGroup(ctx, s, t.sms, accepted)
	t.expect(s, s.Failed == t.cfg.Contacts/10, "every tenth of %d numbers is refused, and %d failed", t.cfg.Contacts, s.Failed)
	return err
}

// otpPhone is no contact's.
const otpPhone = "+251930000001"

// otp sends one message while the campaign t.sms is running.
func (t *tour) otp(ctx context.Context, s *TourStep) error {
	s.OTP = &OTPFigures{CampaignSentBefore: t.sms.Sent}
	var message row
	err := t.api.call(ctx, http.MethodPost, "/v1/messages", map[string]any{
		"channel_id": t.texts, "delivery_address": otpPhone, "message_body": "Your code is 471183.",
	}, &message)
	if err != nil {
		return err
	}
	err = t.until(ctx, "the code to be sent", func() (bool, error) {
		err := t.api.call(ctx, http.MethodGet, "/v1/messages/"+message.ID, nil, &message)
		return message.settled(), err
	})
	if err != nil {
		return err
	}
	var campaign group
	if err := t.api.call(ctx, http.MethodGet, "/v1/group-messages/"+t.sms.ID, nil, &campaign); err != nil {
		return err
	}
	s.OTP.CampaignPendingAfter = campaign.Pending
	s.count([]row{message})
	s.rate(message.Sent.Sub(message.Created).Seconds())
	if err := t.settle(s, []row{message}); err != nil {
		return err
	}
	t.expect(s, s.Sent == 1, "the code is %s", message.Status)
	t.expect(s, campaign.Pending > 0, "the campaign had ended before the code was sent")
	return t.commitToProvider(s, message)
}

// commitToProvider reads from the journal when the provider took the message.
func (t *tour) commitToProvider(s *TourStep, message row) error {
	err := t.journal(func(r sim.Record) {
		if r.To == message.Address {
			s.OTP.CommitToProviderMS = r.Time.Sub(message.Created).Seconds() * 1000
		}
	})
	t.say("   %.0f ms from its commit to the provider; the campaign had sent %d, and %d of it were left",
		s.OTP.CommitToProviderMS, s.OTP.CampaignSentBefore, s.OTP.CampaignPendingAfter)
	return err
}

// settled reports whether a message has its outcome.
func (r row) settled() bool {
	switch r.Status {
	case "queued", "sending", "failed":
		return false
	}
	return true
}

// pollEvery is how long the tour waits before it looks again.
const pollEvery = 50 * time.Millisecond

// until looks until something has happened; after giveUp that is an error.
func (t *tour) until(ctx context.Context, what string, happened func() (bool, error)) error {
	start := t.cfg.Clock.Now()
	for {
		done, err := happened()
		if done || err != nil {
			return err
		}
		if t.cfg.Clock.Now().Sub(start) > giveUp {
			return fmt.Errorf("waited %s for %s", giveUp, what)
		}
		if err := clock.Sleep(ctx, t.cfg.Clock, pollEvery); err != nil {
			return err
		}
	}
}
