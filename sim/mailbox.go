package sim

import (
	"bytes"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jhillyerd/enmime/v2"
)

// keepMessageBytes is the largest message whose content the mailbox keeps whole.
const keepMessageBytes = 256 << 10

// mail is one message kept for showing.
type mail struct {
	n    int64
	time time.Time
	from string
	to   []string
	raw  []byte
	// cut says that raw is only the beginning.
	cut bool
}

// mailbox keeps the first and the latest messages in memory. Both are rings of
// reused buffers; the first one just never wraps.
type mailbox struct {
	mu     sync.Mutex
	first  []mail
	recent []mail
	keep   int
	next   int // slot of recent that is written next
	room   int
}

func newMailbox(keepFirst, keepRecent int) *mailbox {
	return &mailbox{keep: keepFirst, room: keepRecent}
}

func (b *mailbox) add(n int64, t time.Time, from string, to []string, raw []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var slot *mail
	switch {
	case len(b.first) < b.keep:
		b.first = append(b.first, mail{})
		slot = &b.first[len(b.first)-1]
	case len(b.recent) < b.room:
		b.recent = append(b.recent, mail{})
		slot = &b.recent[len(b.recent)-1]
	default:
		slot = &b.recent[b.next]
		b.next = (b.next + 1) % b.room
	}
	slot.n, slot.time, slot.from = n, t, from
	slot.to = append(slot.to[:0], to...)
	slot.cut = len(raw) > keepMessageBytes
	slot.raw = append(slot.raw[:0], raw[:min(len(raw), keepMessageBytes)]...)
}

// list returns the messages kept for the recipient ("" for all), newest first,
// at most limit of them.
func (b *mailbox) list(to string, limit int) []mail {
	b.mu.Lock()
	defer b.mu.Unlock()
	var found []mail
	for _, m := range slices.Concat(b.first, b.recent) {
		if to == "" || slices.ContainsFunc(m.to, func(r string) bool { return strings.EqualFold(r, to) }) {
			found = append(found, m)
		}
	}
	slices.SortFunc(found, func(a, b mail) int { return int(b.n - a.n) })
	found = found[:min(len(found), limit)]
	for i := range found {
		found[i] = found[i].clone()
	}
	return found
}

// get returns the message with the number.
func (b *mailbox) get(n int64) (mail, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, kept := range [][]mail{b.first, b.recent} {
		for i := range kept {
			if kept[i].n == n {
				return kept[i].clone(), true
			}
		}
	}
	return mail{}, false
}

// clone copies what the ring would overwrite.
func (m mail) clone() mail {
	m.to, m.raw = slices.Clone(m.to), bytes.Clone(m.raw)
	return m
}

// Message is a message as the mailbox shows it.
type Message struct {
	// N is the number of its first journal record.
	N int64 `json:"n"`
	// Time is when it arrived.
	Time time.Time `json:"t"`
	// EnvelopeFrom and EnvelopeTo are the addresses of the SMTP dialogue.
	EnvelopeFrom string   `json:"envelope_from"`
	EnvelopeTo   []string `json:"envelope_to"`
	// From, To, Subject and MessageID are the decoded header fields.
	From      string `json:"from"`
	To        string `json:"to"`
	Subject   string `json:"subject"`
	MessageID string `json:"message_id"`
	// Bytes is how much of the content is kept; Truncated says that there was more.
	Bytes     int  `json:"bytes"`
	Truncated bool `json:"truncated"`
	// Text and HTML are the decoded bodies; empty in lists.
	Text string `json:"text,omitempty"`
	HTML string `json:"html,omitempty"`
	// Problem says why the content could not be decoded.
	Problem string `json:"problem,omitempty"`
}

// decode reads the content; bodies are left out of lists.
func (m mail) decode(bodies bool) Message {
	shown := Message{
		N: m.n, Time: m.time.UTC(), EnvelopeFrom: m.from, EnvelopeTo: m.to,
		Bytes: len(m.raw), Truncated: m.cut,
	}
	raw := m.raw
	if end := bytes.Index(raw, []byte("\r\n\r\n")); end >= 0 && !bodies {
		raw = raw[:end+4]
	}
	envelope, err := enmime.ReadEnvelope(bytes.NewReader(raw))
	if err != nil {
		shown.Problem = err.Error()
		return shown
	}
	shown.From, shown.To = envelope.GetHeader("From"), envelope.GetHeader("To")
	shown.Subject = envelope.GetHeader("Subject")
	shown.MessageID = string(trimID([]byte(envelope.GetHeader("Message-Id"))))
	if bodies {
		shown.Text, shown.HTML = envelope.Text, envelope.HTML
	}
	return shown
}

// Messages returns the kept messages for a recipient ("" for all) with their
// bodies, newest first, at most limit of them.
func (s *Server) Messages(to string, limit int) []Message {
	var out []Message
	for _, m := range s.mailbox.list(to, limit) {
		out = append(out, m.decode(true))
	}
	return out
}
