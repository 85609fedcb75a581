package messaging

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/services/messaging/channel"
)

// Fallback strategies for variables that no source resolves.
const (
	FallbackKeep    = "keep_placeholder"
	FallbackDefault = "use_default"
	FallbackSkip    = "skip_contact"
)

// CategoryAuto marks templates that were made from a message_body.
const CategoryAuto = "auto-generated"

// Template is reusable text with {VARIABLES}.
type Template struct {
	ID                 string
	AccountID          string
	Name               string
	Body               string
	HTMLBody           string `db:"html_body"`
	Subject            string
	Category           string
	ChannelType        string // empty: any
	Language           string
	Variables          []string
	DefaultValues      map[string]string
	FallbackStrategy   string
	ApprovalStatus     string
	ExternalTemplateID string
	IsActive           bool
	CreatedByUserID    string
	CreatedAt          time.Time
	UpdatedAt          time.Time
	// Attachments are only read for one template alone.
	Attachments []*Attachment `db:"-"`
}

// Prepare checks a template before it is stored and finds its variables.
func (t *Template) Prepare() error {
	r, err := NewRenderer(t.Snapshot())
	if err != nil {
		return err
	}
	t.Variables = r.Variables()
	if t.FallbackStrategy == "" {
		t.FallbackStrategy = FallbackKeep
	}
	return r.fits(t.ChannelType)
}

// Fits refuses a template that is too long for a type of channel, or for what its
// adapter carries, whatever the values are.
func (t *Template) Fits(channelType string, caps channel.Capabilities) error {
	r, err := NewRenderer(t.Snapshot())
	if err != nil {
		return err
	}
	return r.On(caps).fits(channelType)
}

func (r *Renderer) fits(channelType string) error {
	if e := r.Excess(channelType, r.blank()); e != "" {
		return apierr.New(errorv1.Reason_REASON_TEMPLATE_INVALID, "the template is too long for any message: %s", e)
	}
	return nil
}

// AutoTemplate is the template of a send that came with a text of its own; the send
// is called parent.
func AutoTemplate(accountID, parent, userID string, at time.Time) *Template {
	if parent == "" {
		parent = "group message"
	}
	before, after := "Auto: ", " — "+at.UTC().Format("2006-01-02 15:04:05")
	return &Template{
		ID: NewID(), AccountID: accountID, Name: before + clip(parent, MaxTemplateName-len(before+after)) + after,
		Category: CategoryAuto, IsActive: true, CreatedByUserID: userID,
	}
}

// MaxTemplateName is the longest name of a template, in characters.
const MaxTemplateName = 255

// Copy is a template of its own with the same text. What a provider said of the
// original does not hold for it, and it is nobody's auto-template.
func (t *Template) Copy(name, userID string) *Template {
	c := *t
	c.ID, c.Name, c.CreatedByUserID = NewID(), name, userID
	c.ApprovalStatus, c.ExternalTemplateID = "", ""
	if c.Category == CategoryAuto {
		c.Category = ""
	}
	return &c
}

// CopyNames are what a copy may be called, best first.
func CopyNames(name string) []string {
	names := make([]string, 100)
	for i := range names {
		suffix := " (copy)"
		if i > 0 {
			suffix = fmt.Sprintf(" (copy %d)", i+1)
		}
		names[i] = clip(name, MaxTemplateName-len(suffix)) + suffix
	}
	return names
}

// clip keeps the first n characters.
func clip(s string, n int) string {
	if r := []rune(s); len(r) > n {
		return string(r[:n])
	}
	return s
}

// Snapshot is what a send keeps of its template.
func (t *Template) Snapshot() Snapshot {
	return Snapshot{Version: RendererVersion, Subject: t.Subject, Body: t.Body, HTMLBody: t.HTMLBody, Defaults: t.DefaultValues, Fallback: t.FallbackStrategy}
}

// RendererVersion names the rules of rendering: what is a variable, what is escaped
// and how. A snapshot is always rendered by the rules it was taken under, so that a
// message reads tomorrow as it was sent; testdata/renderer_<version>.json holds each
// version to what it once made.
const RendererVersion = 1

// Snapshot is a template as a send uses it, however the template changes later.
type Snapshot struct {
	Version  int               `json:"version"`
	Subject  string            `json:"subject,omitempty"`
	Body     string            `json:"body"`
	HTMLBody string            `json:"html_body,omitempty"`
	Defaults map[string]string `json:"defaults,omitempty"`
	Fallback string            `json:"fallback,omitempty"`
	// Attachments are the files; their bytes stay where they are.
	Attachments []*Attachment `json:"attachments,omitempty"`
}

// WithSubject is the snapshot with another subject line where it has none of its own.
func (s Snapshot) WithSubject(line string) Snapshot {
	with := s
	with.Subject = line
	if _, err := NewRenderer(with); s.Subject != "" || err != nil { // together they may have too many variables
		return s
	}
	return with
}

// Value is what stands for one variable.
type Value struct{ Name, Text string }

// Values are the values of variables, each once, in order of their names: a map would be
// the dearest part of a send's recipient.
type Values []Value

// ValuesOf are values by name.
func ValuesOf(byName map[string]string) Values {
	if byName == nil {
		return nil
	}
	v := make(Values, 0, len(byName))
	for name, text := range byName {
		v = append(v, Value{name, text})
	}
	slices.SortFunc(v, func(a, b Value) int { return strings.Compare(a.Name, b.Name) })
	return v
}

// get is a variable's value; mostly it is at place.
func (v Values) get(name string, place int) (text string, ok bool) {
	if place < len(v) && v[place].Name == name {
		return v[place].Text, true
	}
	i, ok := slices.BinarySearchFunc(v, name, func(one Value, name string) int { return strings.Compare(one.Name, name) })
	if !ok {
		return "", false
	}
	return v[i].Text, true
}

// AppendJSON appends the values as a JSON object.
func (v Values) AppendJSON(dst []byte) []byte {
	dst = append(dst, '{')
	for i, one := range v {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendJSONString(append(appendJSONString(dst, one.Name), ':'), one.Text)
	}
	return append(dst, '}')
}

// UnmarshalJSON reads what AppendJSON wrote; null is nil.
func (v *Values) UnmarshalJSON(raw []byte) error {
	var byName map[string]string
	if err := json.Unmarshal(raw, &byName); err != nil {
		return err
	}
	*v = ValuesOf(byName)
	return nil
}

// appendJSONString spares most texts the escaping.
func appendJSONString(dst []byte, s string) []byte {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' || s[i] == '"' || s[i] == '\\' {
			quoted, _ := json.Marshal(s) // a string never fails
			return append(dst, quoted...)
		}
	}
	return append(append(append(dst, '"'), s...), '"')
}

// segment is literal text or one variable.
type segment struct {
	text     string
	variable bool
	// place is where the variable is among the renderer's, by name.
	place int
}

// Text is a parsed template text.
type Text []segment

// maxVariables is the most different variables of one template.
const maxVariables = 200

// Parse splits a text at its variables. {NAME} with NAME = [A-Z_][A-Z0-9_]* is
// a variable, {{NAME}} the literal {NAME}; other braces are plain text.
func Parse(s string) (Text, error) {
	var t Text
	names := map[string]bool{} // counted on the way, so that a text of nothing else is soon refused
	lit := 0
	for i := 0; i < len(s); {
		if s[i] != '{' {
			i++
			continue
		}
		if name, ok := nameAt(s, i+2, "}}"); ok && strings.HasPrefix(s[i:], "{{") {
			t = append(t.literal(s[lit:i]), segment{text: "{" + name + "}"})
			i += len(name) + 4
			lit = i
			continue
		}
		name, ok := nameAt(s, i+1, "}")
		if !ok {
			i++
			continue
		}
		if names[name] = true; len(names) > maxVariables {
			return nil, fmt.Errorf("has too many variables, at most %d are allowed", maxVariables)
		}
		t = append(t.literal(s[lit:i]), segment{text: name, variable: true})
		i += len(name) + 2
		lit = i
	}
	return t.literal(s[lit:]), nil
}

func (t Text) literal(s string) Text {
	if s == "" {
		return t
	}
	return append(t, segment{text: s})
}

// maxName is the longest name of a variable.
const maxName = 64

// nameAt reads a variable name at i that ends with closing.
func nameAt(s string, i int, closing string) (string, bool) {
	end := i
	for end < len(s) && end-i < maxName && isNameByte(s[end], end == i) {
		end++
	}
	if end == i || !strings.HasPrefix(s[end:], closing) {
		return "", false
	}
	return s[i:end], true
}

func isNameByte(c byte, first bool) bool {
	return c == '_' || (c >= 'A' && c <= 'Z') || (!first && c >= '0' && c <= '9')
}

// Variables are the names in the text, in order of first use.
func (t Text) Variables() []string {
	var names []string
	for _, s := range t {
		if s.variable && !slices.Contains(names, s.text) {
			names = append(names, s.text)
		}
	}
	return names
}

// render fills in the values; of is the size of a value as escape, which may be nil,
// makes it. A long text is written once, where it stays.
func (t Text) render(values Values, of func(string) int, escape func(string) string) string {
	var b strings.Builder
	b.Grow(t.size(values, of))
	for _, s := range t {
		if !s.variable {
			b.WriteString(s.text)
			continue
		}
		v, ok := values.get(s.text, s.place)
		switch {
		case !ok:
			b.WriteByte('{')
			b.WriteString(s.text)
			b.WriteByte('}')
		case escape != nil:
			b.WriteString(escape(v))
		default:
			b.WriteString(v)
		}
	}
	return b.String()
}

// plain fills in the values as they are.
func (t Text) plain(values Values) string { return t.render(values, plainSize, nil) }

// Renderer renders one snapshot for many recipients. It is immutable.
type Renderer struct {
	subject, body, html Text
	defaults            map[string]string
	fallback            string
	variables           []string // in order of first use
	byName              []string // the same in order of their names
	caps                channel.Capabilities
}

// Rendered is a snapshot with its values filled in.
type Rendered struct {
	Subject, Text, HTML string
}

// NewRenderer parses a snapshot. One of a later program is an error that passes when
// this program is replaced; version 0 means the current rules.
func NewRenderer(s Snapshot) (*Renderer, error) {
	if s.Version > RendererVersion {
		return nil, fmt.Errorf("the text needs version %d of the renderer, this program has %d", s.Version, RendererVersion)
	}
	r := &Renderer{defaults: s.Defaults, fallback: s.Fallback}
	for _, part := range []struct {
		name, text string
		to         *Text
	}{{"subject", s.Subject, &r.subject}, {"body", s.Body, &r.body}, {"html_body", s.HTMLBody, &r.html}} {
		t, err := Parse(part.text)
		if err != nil {
			return nil, apierr.New(errorv1.Reason_REASON_TEMPLATE_INVALID, "the template %s", err).WithFields(apierr.Field{Field: part.name, Message: err.Error()})
		}
		*part.to = t
		for _, v := range t.Variables() {
			if !slices.Contains(r.variables, v) {
				r.variables = append(r.variables, v)
			}
		}
	}
	if len(r.variables) > maxVariables {
		return nil, apierr.New(errorv1.Reason_REASON_TEMPLATE_INVALID, "the template has more than %d variables", maxVariables)
	}
	r.byName = slices.Sorted(slices.Values(r.variables))
	for _, t := range []Text{r.subject, r.body, r.html} {
		t.place(r.byName)
	}
	return r, nil
}

// place notes where the text's variables are among names.
func (t Text) place(names []string) {
	for i, s := range t {
		if s.variable {
			t[i].place, _ = slices.BinarySearch(names, s.text)
		}
	}
}

// On is the renderer with what an adapter carries as a further limit.
func (r *Renderer) On(caps channel.Capabilities) *Renderer {
	on := *r
	on.caps = caps
	return &on
}

// Variables are the names in subject, body and HTML, in order of first use.
func (r *Renderer) Variables() []string { return r.variables }

// Resolve picks the values that the template needs from lookup, falling back as
// the template says. unresolved are the names without a value, in their order; skip says that
// the recipient gets no message because of them.
func (r *Renderer) Resolve(lookup func(name string) (string, bool)) (values Values, unresolved []string, skip bool) {
	values = make(Values, 0, len(r.byName))
	for _, name := range r.byName {
		v, ok := lookup(name)
		if !ok && r.fallback == FallbackDefault {
			v, ok = r.defaults[name]
		}
		if ok {
			values = append(values, Value{name, v})
			continue
		}
		unresolved = append(unresolved, name)
	}
	return values, unresolved, len(unresolved) > 0 && r.fallback == FallbackSkip
}

// Render fills in the values. Values in HTML are escaped.
func (r *Renderer) Render(values Values) Rendered {
	return Rendered{
		Subject: oneLine(r.subject.plain(values)),
		Text:    r.body.plain(values),
		HTML:    r.html.render(values, escapedSize, htmlEscaper.Replace),
	}
}

var htmlEscaper = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&#34;", "'", "&#39;")

// oneLine keeps a value with line breaks from becoming more headers.
func oneLine(s string) string {
	if !strings.ContainsAny(s, "\r\n\x00") {
		return s
	}
	return strings.Join(strings.FieldsFunc(s, func(c rune) bool { return c == '\r' || c == '\n' || c == 0 }), " ")
}
