package messaging

import "slices"

// Estimate is what a text would cost for some recipients, before it is sent.
type Estimate struct {
	ChannelType string
	// Encoding is that of the most demanding message; only SMS have one.
	Encoding Encoding
	// Units and Segments are those of the longest message, Total the segments of all.
	// A message that is no SMS is one segment.
	Units, Segments, Total int
	// Recipients is how many would get a message.
	Recipients int
	// Skipped are those who would not.
	Skipped []EstimateSkip
	// Unresolved are the variables without a value for somebody, in order of use.
	Unresolved []string
	// Bytes is how long all texts are together.
	Bytes int
	// Sample is the text for the first recipient.
	Sample Rendered
}

// EstimateSkip is a recipient who would get no message.
type EstimateSkip struct {
	ContactID, Address, Reason string
}

// NewEstimate starts an estimate for a type of channel.
func NewEstimate(channelType string) *Estimate {
	return &Estimate{ChannelType: channelType}
}

// Skip notes a recipient who would get no message.
func (e *Estimate) Skip(contactID, address, reason string) {
	e.Skipped = append(e.Skipped, EstimateSkip{contactID, address, reason})
}

// Miss notes variables without a value.
func (e *Estimate) Miss(names []string) {
	for _, name := range names {
		if !slices.Contains(e.Unresolved, name) {
			e.Unresolved = append(e.Unresolved, name)
		}
	}
}

// Add counts the message of one more recipient.
func (e *Estimate) Add(text Rendered) {
	if e.Recipients == 0 {
		e.Sample = text
	}
	e.Recipients++
	e.Bytes += len(text.Text) + len(text.HTML)
	e.Total += e.Measure(text)
}

// Measure takes a text into what the longest message needs, and returns its
// segments.
func (e *Estimate) Measure(text Rendered) (segments int) {
	s := Segments{Count: 1}
	if IsSMS(e.ChannelType) {
		s = CountSegments(text.Text)
	}
	if e.Encoding != EncodingUCS2 {
		e.Encoding = s.Encoding
	}
	if s.Count > e.Segments || s.Count == e.Segments && s.Units > e.Units {
		e.Segments, e.Units = s.Count, s.Units
	}
	return s.Count
}
