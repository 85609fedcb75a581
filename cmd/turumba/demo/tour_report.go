package demo

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// TourReport is what a tour came to.
type TourReport struct {
	// Contacts is the size of the address book.
	Contacts int `json:"contacts"`
	// Seconds is how long the steps took together.
	Seconds float64 `json:"seconds"`
	// Steps are in the order in which they began.
	Steps []*TourStep `json:"steps"`
	// Problems say which figures do not agree with each other or with the provider's journal.
	Problems []string `json:"problems"`
}

// Err is an error if there are problems.
func (r TourReport) Err() error {
	if len(r.Problems) == 0 {
		return nil
	}
	return fmt.Errorf("the tour's figures do not agree: %s", strings.Join(r.Problems, "; "))
}

// TourStep is what one step came to.
type TourStep struct {
	// Step is its name, Title what it is about.
	Step  string `json:"step"`
	Title string `json:"title"`
	TourTotals
	// DryRun, OTP, Cancel and Resend are what these steps have besides.
	DryRun *DryRunFigures `json:"dry_run,omitempty"`
	OTP    *OTPFigures    `json:"otp,omitempty"`
	Cancel *CancelFigures `json:"cancel,omitempty"`
	Resend *ResendFigures `json:"resend,omitempty"`

	// since is the number of the last journal record before it.
	since int64
}

// TourTotals are the figures that every step has.
type TourTotals struct {
	// Accepted is how many messages there are: Sent, Failed and Cancelled together.
	Accepted int `json:"accepted"`
	Sent     int `json:"sent"`
	// Failed are those that failed for good; Unknown of them may have arrived.
	Failed    int `json:"failed"`
	Unknown   int `json:"unknown"`
	Cancelled int `json:"cancelled"`
	// Skipped is how many people got no message.
	Skipped int `json:"skipped"`
	// ReceivedDistinct is how many recipients the provider has taken a message for,
	// ReceivedDuplicates how many messages more than one for each.
	ReceivedDistinct   int `json:"received_distinct"`
	ReceivedDuplicates int `json:"received_duplicates"`
	// Seconds runs from when it was accepted to the last outcome.
	Seconds float64 `json:"seconds"`
	// RatePerSecond is Sent in Seconds.
	RatePerSecond float64 `json:"rate_per_second"`
}

// DryRunFigures are what a dry run said.
type DryRunFigures struct {
	Recipients    int            `json:"recipients"`
	SkippedCount  int            `json:"skipped_count"`
	Skipped       map[string]int `json:"skipped"`
	TotalSegments int            `json:"total_segments"`
	Unresolved    map[string]int `json:"unresolved"`
	Complete      bool           `json:"complete"`
	Samples       []struct {
		Address string `json:"delivery_address"`
		Subject string `json:"subject"`
		Body    string `json:"message_body"`
	} `json:"samples"`
}

// OTPFigures tell how a single message fared in the midst of a campaign.
type OTPFigures struct {
	// CommitToProviderMS is from the created_at of the message to the provider's record of it.
	CommitToProviderMS float64 `json:"commit_to_provider_ms"`
	// CampaignSentBefore is how far the campaign was, CampaignPendingAfter what was left
	// of it when the message had been sent.
	CampaignSentBefore   int `json:"campaign_sent_before"`
	CampaignPendingAfter int `json:"campaign_pending_after"`
}

// CancelFigures tell what a cancel stopped.
type CancelFigures struct {
	// SentBefore is how many had been sent when it was asked for.
	SentBefore int `json:"sent_before"`
	// StoppedAfterMS is from the cancel's commit to the provider's last record; 0 if it took
	// nothing after it.
	StoppedAfterMS float64 `json:"stopped_after_ms"`
}

// ResendFigures tell whom a resend went to.
type ResendFigures struct {
	// FailedBefore is how many had failed in the send before.
	FailedBefore int `json:"failed_before"`
	// SentTwice is how many got it that had been sent to before.
	SentTwice int `json:"sent_twice"`
}

// rate sets the time that the step took.
func (s *TourStep) rate(seconds float64) {
	s.Seconds = seconds
	if seconds > 0 {
		s.RatePerSecond = float64(s.Sent) / seconds
	}
}

// print tells the figures to a reader.
func (t *tour) print(s *TourStep) {
	t.say("   accepted %d = sent %d + failed %d (%d unknown) + cancelled %d; skipped %d; %.2f s, %.0f/s",
		s.Accepted, s.Sent, s.Failed, s.Unknown, s.Cancelled, s.Skipped, s.Seconds, s.RatePerSecond)
	t.say("   the provider's journal: %d recipients, %d messages twice", s.ReceivedDistinct, s.ReceivedDuplicates)
}

// counts is "a 1, b 2" in order of the names.
func counts(m map[string]int) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(m)) {
		parts = append(parts, fmt.Sprintf("%s %d", name, m[name]))
	}
	return strings.Join(parts, ", ")
}
