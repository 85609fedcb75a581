package messaging

import "time"

const (
	// DryRunRecipients is how many recipients a dry run looks at.
	DryRunRecipients = 100_000
	// DryRunTime is how long it looks.
	DryRunTime = 10 * time.Second
	// drySamples is how many texts it shows.
	drySamples = 3
)

// DryRun is what a send would come to.
type DryRun struct {
	*Estimate
	// Skips is how many would get no message, by reason.
	Skips map[string]int
	// Missing is for how many each variable has no value.
	Missing map[string]int
	// Samples are the texts for the first who would get one.
	Samples []Sample
	// Complete says that all recipients were looked at.
	Complete bool

	renderer *Renderer
	looked   int
	until    time.Time
}

// Sample is the text for one recipient.
type Sample struct {
	To   Addressee
	Text Rendered
}

// NewDryRun begins to look at an audience.
func NewDryRun(a *Audience, now time.Time) *DryRun {
	return &DryRun{
		Estimate: NewEstimate(a.channelType), Skips: map[string]int{}, Missing: a.Missing, renderer: a.Renderer, until: now.Add(DryRunTime),
	}
}

// Take counts a stretch of the audience. Only samples and SMS need their text.
func (d *DryRun) Take(to []Addressee, skips []Skip) {
	d.looked += len(to) + len(skips)
	for _, s := range skips {
		d.Skips[s.Reason]++
	}
	for _, one := range to {
		var text Rendered
		if len(d.Samples) < drySamples || IsSMS(d.ChannelType) {
			text = d.renderer.Render(one.Values)
		}
		if len(d.Samples) < drySamples {
			d.Samples = append(d.Samples, Sample{one, text})
		}
		d.Add(text)
	}
}

// Enough reports whether the dry run has looked as long as it may.
func (d *DryRun) Enough(now time.Time) bool {
	return d.looked >= DryRunRecipients || now.After(d.until)
}
