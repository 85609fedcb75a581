package demo

import (
	"context"
	"fmt"
	"strings"

	"github.com/turumba/turumba/sim"
)

// The tour sends to an address book of this size: small ones end before anybody could
// do something in their midst, large ones are for the benchmarks.
const (
	TourMin = 50
	TourMax = 50_000
)

// TourConfig says what a tour needs besides what the demo has.
type TourConfig struct {
	Config
	// TwilioURL is the simulator's Twilio.
	TwilioURL string
	// Journal is the file in which the simulator notes what it took.
	Journal string
	// SetFaults lets the simulator make these from now on, and no others.
	SetFaults func(ctx context.Context, faults ...sim.Fault) error
}

// Tour shows what the product does, step by step, and holds each step's figures against
// the simulator's journal. Where they do not agree it goes on, and the report has Problems.
func Tour(ctx context.Context, cfg TourConfig) (TourReport, error) {
	t := &tour{player: newPlayer(cfg.Config), cfg: cfg, report: TourReport{Contacts: cfg.Contacts, Problems: []string{}}}
	if err := t.prepare(ctx); err != nil {
		return t.report, err
	}
	start := cfg.Clock.Now()
	t.api.heard = t.heard
	for _, s := range t.steps() {
		if err := t.play(ctx, s); err != nil {
			return t.report, err
		}
	}
	t.report.Seconds = cfg.Clock.Now().Sub(start).Seconds()
	t.summary()
	return t.report, nil
}

// step is one part of the tour.
type step struct {
	name, title string
	play        func(context.Context, *TourStep) error
}

// steps is the tour in its order. The OTP is played in the midst of the SMS campaign.
func (t *tour) steps() []step {
	return []step{
		{"dry_run", "A dry run: who would get the e-mail, and who would not", t.dryRun},
		{"email_campaign", "The e-mail campaign: as the dry run said", t.emailCampaign},
		{"sms_campaign", "An SMS campaign by Twilio, which refuses every tenth number at first", t.smsCampaign},
		{"batch", "A batch of 1000 single messages in one call", t.batch},
		{"cancel", "A campaign that is cancelled at half", t.cancel},
		{"resend", "A resend of the SMS campaign, to only those who failed", t.resend},
	}
}

// tour holds what its steps share.
type tour struct {
	*player
	cfg    TourConfig
	report TourReport

	password                        string
	groupID, excludedID, templateID string
	// office is a quick e-mail channel, slow one that takes its time, texts the SMS one.
	office, slow, texts string
	// foreseen is what the dry run said.
	foreseen *DryRunFigures
	// sms is the SMS campaign, smsRows are its messages.
	sms     group
	smsRows []row
}

// play plays one step and holds it against the journal's records from its beginning on.
func (t *tour) play(ctx context.Context, s step) error {
	since, err := t.journalLength()
	if err != nil {
		return err
	}
	figures := &TourStep{Step: s.name, Title: s.title, since: since}
	t.report.Steps = append(t.report.Steps, figures)
	t.say("\n%d. %s", len(t.report.Steps), s.title)
	if err := s.play(ctx, figures); err != nil {
		return fmt.Errorf("%s: %w", s.name, err)
	}
	return nil
}

// heard tells the reader which call was made.
func (t *tour) heard(method, path string, status int) {
	t.say("   → %s %s  %d", method, path, status)
}

// expect notes a problem of a step unless ok.
func (t *tour) expect(s *TourStep, ok bool, format string, a ...any) {
	if ok {
		return
	}
	problem := s.Step + ": " + fmt.Sprintf(format, a...)
	t.report.Problems = append(t.report.Problems, problem)
	t.say("   ✗ %s", problem)
}

func (t *tour) summary() {
	if n := len(t.report.Problems); n > 0 {
		t.say("\n%d figures do not agree:\n  %s", n, strings.Join(t.report.Problems, "\n  "))
		return
	}
	t.say("\n%d steps in %.0f s; every figure agrees with the provider's journal.", len(t.report.Steps), t.report.Seconds)
	t.say("log in with %s / %s", ownerEmail, t.password)
}
