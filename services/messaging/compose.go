package messaging

import (
	"fmt"
	"strings"
	"unicode/utf8"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/services/messaging/channel"
)

// The most that one message holds once its variables are filled in: short values
// must not blow a template up (ADR 0022). Sizes are bytes of UTF-8; those of HTML
// count what escaping adds.
const (
	MaxSubject  = 4 << 10
	MaxText     = 64 << 10
	MaxHTML     = 512 << 10
	MaxSegments = 10 // of one SMS text
)

// Composed is the text of one message.
type Composed struct {
	Rendered
	Values Values
	// Unresolved are the variables without a value.
	Unresolved []string
	// Skip says that a send leaves the recipient out because of them.
	Skip bool
	// Excess is what makes the text too long to be sent; nothing is rendered then.
	Excess string
}

// SkipReason is why a send leaves the recipient out; empty if it does not.
func (c Composed) SkipReason() string {
	switch {
	case c.Skip:
		return SkipUnresolved
	case c.Excess != "":
		return SkipTooLong
	}
	return ""
}

// Complete is an error where a send would have left the recipient out: a single
// message has nobody else to go to. field is where the text came from.
func (c Composed) Complete(field string) error {
	switch {
	case c.Excess != "":
		return invalidText(field, "make the message too long: "+c.Excess)
	case c.Skip:
		return invalidText(field, "no value for "+strings.Join(c.Unresolved, ", "))
	}
	return nil
}

func invalidText(field, message string) error {
	return apierr.New(errorv1.Reason_REASON_VALIDATION_FAILED, "the request is not valid").WithFields(apierr.Field{Field: field, Message: message})
}

// Compose renders for one recipient on a type of channel, unless the values make
// the text too long.
func (r *Renderer) Compose(channelType string, s Sources, to Recipient) (c Composed) {
	c.Values, c.Unresolved, c.Skip = r.Resolve(s.Lookup(&to))
	if c.Excess = r.Excess(channelType, c.Values); c.Excess == "" {
		c.Rendered = r.Render(c.Values)
	}
	return c
}

// Plain is a text that is sent as it is: braces are no variables in it.
func Plain(channelType string, caps channel.Capabilities, subject, body string) Composed {
	r := &Renderer{subject: Text{}.literal(subject), body: Text{}.literal(body), caps: caps}
	c := r.Compose(channelType, Sources{}, Recipient{})
	c.Values = nil
	return c
}

// Excess is what makes the text too long for a message on a type of channel; empty
// if it fits. An empty type stands for any.
func (r *Renderer) Excess(channelType string, values Values) string {
	for _, part := range []struct {
		name      string
		size, max int
	}{
		{"subject", r.subject.size(values, plainSize), MaxSubject},
		{"text", r.body.size(values, plainSize), MaxText},
		{"HTML", r.html.size(values, escapedSize), MaxHTML},
	} {
		if part.size > part.max {
			return fmt.Sprintf("the %s has %d bytes, at most %d can be sent", part.name, part.size, part.max)
		}
	}
	if most := r.caps.MaxText; most > 0 {
		if n := utf8.RuneCountInString(r.body.plain(values)); n > most {
			return fmt.Sprintf("the text has %d characters, at most %d can be sent on this channel", n, most)
		}
	}
	if !IsSMS(channelType) {
		return ""
	}
	if n := CountSegments(r.body.plain(values)).Count; n > MaxSegments {
		return fmt.Sprintf("the text takes %d SMS, at most %d can be sent as one message", n, MaxSegments)
	}
	return ""
}

// blank are the shortest values there can be.
func (r *Renderer) blank() Values {
	v := make(Values, len(r.byName))
	for i, name := range r.byName {
		v[i].Name = name
	}
	return v
}

// size is how long the text is with the values, in bytes; of is the size of a value.
func (t Text) size(values Values, of func(string) int) (n int) {
	for _, s := range t {
		if !s.variable {
			n += len(s.text)
			continue
		}
		if v, ok := values.get(s.text, s.place); ok {
			n += of(v)
		} else {
			n += len(s.text) + len("{}")
		}
	}
	return n
}

func plainSize(v string) int { return len(v) }

// escapedSize is how long a value is in HTML.
func escapedSize(v string) int {
	n := len(v)
	for i := range len(v) {
		switch v[i] {
		case '&', '"', '\'':
			n += len("&amp;") - 1
		case '<', '>':
			n += len("&lt;") - 1
		}
	}
	return n
}
