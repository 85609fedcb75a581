package messaging_test

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/services/messaging"
	"github.com/turumba/turumba/services/messaging/channel"
)

func TestRender(t *testing.T) {
	t.Parallel()
	values := messaging.Values{{Name: "A", Text: "one"}, {Name: "B_2", Text: "<two> & {A}"}, {Name: "NL", Text: "x\r\nBcc: y"}}
	for text, want := range map[string]string{
		"":                                  "",
		"plain":                             "plain",
		"{A}":                               "one",
		"{A}{A}":                            "oneone",
		"{{A}}":                             "{A}",
		"{{{A}}}":                           "{{A}}",
		"{B_2}":                             "<two> & {A}",
		"{MISSING}":                         "{MISSING}",
		"{a} {1} {} { A} {A":                "{a} {1} {} { A} {A",
		"{ {A} }":                           "{ one }",
		"body { color: {A} }":               "body { color: one }",
		"ünïcödé {A} ሰላም":                   "ünïcödé one ሰላም",
		"{" + strings.Repeat("A", 65) + "}": "{" + strings.Repeat("A", 65) + "}",
	} {
		r, err := messaging.NewRenderer(messaging.Snapshot{Body: text})
		require.NoError(t, err)
		require.Equal(t, want, r.Render(values).Text, text)
	}
	r, err := messaging.NewRenderer(messaging.Snapshot{Subject: "S {NL}", Body: "{B_2}", HTMLBody: "<p>{B_2}</p>"})
	require.NoError(t, err)
	out := r.Render(values)
	require.Equal(t, "S x Bcc: y", out.Subject, "a value cannot add header lines")
	require.Equal(t, "<p>&lt;two&gt; &amp; {A}</p>", out.HTML, "values are escaped and not expanded again")
	require.Equal(t, []string{"NL", "B_2"}, r.Variables())
}

// TestRendererVersions: what a version has once made it makes for ever. A change that
// fails here needs a new version beside the old one.
func TestRendererVersions(t *testing.T) {
	t.Parallel()
	for version := 1; version <= messaging.RendererVersion; version++ {
		raw, err := os.ReadFile(fmt.Sprintf("testdata/renderer_%d.json", version))
		require.NoError(t, err)
		var cases []struct {
			Snapshot messaging.Snapshot
			Values   messaging.Values
			Want     messaging.Rendered
		}
		require.NoError(t, json.Unmarshal(raw, &cases))
		require.NotEmpty(t, cases)
		for _, c := range cases {
			require.Equal(t, version, c.Snapshot.Version)
			r, err := messaging.NewRenderer(c.Snapshot)
			require.NoError(t, err)
			require.Equal(t, c.Want, r.Render(c.Values), c.Snapshot.Body)
		}
	}
	_, err := messaging.NewRenderer(messaging.Snapshot{Version: messaging.RendererVersion + 1})
	require.ErrorContains(t, err, "version")
}

func TestSnapshotWithSubject(t *testing.T) {
	t.Parallel()
	require.Equal(t, "News for {NAME}", messaging.Snapshot{Body: "x"}.WithSubject("News for {NAME}").Subject)
	require.Equal(t, "own", messaging.Snapshot{Subject: "own"}.WithSubject("line").Subject)
	var full strings.Builder
	for i := range 200 {
		fmt.Fprintf(&full, "{V%d}", i)
	}
	require.Empty(t, messaging.Snapshot{Body: full.String()}.WithSubject("{ONE_MORE}").Subject)
}

func TestCopies(t *testing.T) {
	t.Parallel()
	names := messaging.CopyNames("Welcome")
	require.Equal(t, []string{"Welcome (copy)", "Welcome (copy 2)"}, names[:2])
	for _, name := range messaging.CopyNames(strings.Repeat("ሰ", 255)) {
		require.LessOrEqual(t, utf8.RuneCountInString(name), messaging.MaxTemplateName)
		require.True(t, utf8.ValidString(name))
	}
	original := &messaging.Template{ID: "1", AccountID: "2", Name: "x", Body: "{A}", Category: messaging.CategoryAuto, ApprovalStatus: "approved", ExternalTemplateID: "e", CreatedByUserID: "3"}
	c := original.Copy("y", "4")
	require.NotEqual(t, original.ID, c.ID)
	c.ID = ""
	require.Equal(t, &messaging.Template{AccountID: "2", Name: "y", Body: "{A}", CreatedByUserID: "4"}, c)
}

func TestAutoTemplate(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	auto := messaging.AutoTemplate("a", "Term starts", "u", at)
	require.Equal(t, "Auto: Term starts — 2026-03-04 05:06:07", auto.Name)
	require.Equal(t, messaging.CategoryAuto, auto.Category)
	require.Equal(t, "Auto: group message — 2026-03-04 05:06:07", messaging.AutoTemplate("a", "", "u", at).Name)
	require.LessOrEqual(t, utf8.RuneCountInString(messaging.AutoTemplate("a", strings.Repeat("ሰ", 255), "u", at).Name), messaging.MaxTemplateName)
}

func TestTooManyVariables(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	for i := range 201 {
		b.WriteString("{V" + strings.Repeat("X", i%50) + strings.Repeat("Y", i/50) + "}")
	}
	_, err := messaging.NewRenderer(messaging.Snapshot{Body: b.String()})
	require.ErrorContains(t, err, "at most 200")
	b.Reset()
	for i := range 100_000 {
		fmt.Fprintf(&b, "{V%d}", i)
	}
	_, err = messaging.Parse(b.String())
	require.ErrorContains(t, err, "at most 200")
}

func TestVariablePrecedence(t *testing.T) {
	t.Parallel()
	r := messaging.Recipient{Name: "Abebe Bikila", Email: "a@example.org", Attributes: map[string]string{"CITY": "Adama", "EMAIL": "no"}}
	s := messaging.Sources{Custom: map[string]string{"PHONE": "custom"}, AccountName: "School", SenderName: "Ada", Now: time.Date(2026, 3, 4, 5, 6, 0, 0, time.UTC)}
	look := s.Lookup(&r)
	for name, want := range map[string]string{
		"PHONE": "custom", "FIRST_NAME": "Abebe", "LAST_NAME": "Bikila", "EMAIL": "a@example.org", "CITY": "Adama",
		"ACCOUNT_NAME": "School", "SENDER_NAME": "Ada", "CURRENT_DATE": "2026-03-04", "CURRENT_TIME": "05:06",
	} {
		v, ok := look(name)
		require.True(t, ok, name)
		require.Equal(t, want, v, name)
	}
	_, ok := look("SENDER_EMAIL")
	require.False(t, ok, "an empty value is none")
	require.Equal(t, "START_DATE_2", messaging.VariableName("start-date 2"))
}

func TestFallbacks(t *testing.T) {
	t.Parallel()
	none := func(string) (string, bool) { return "", false }
	for _, c := range []struct {
		fallback, text string
		skip           bool
		unresolved     []string
	}{
		{messaging.FallbackKeep, "{A} {B}", false, []string{"A", "B"}},
		{messaging.FallbackDefault, "d {B}", false, []string{"B"}},
		{messaging.FallbackSkip, "{A} {B}", true, []string{"A", "B"}},
	} {
		r, err := messaging.NewRenderer(messaging.Snapshot{Body: "{A} {B}", Defaults: map[string]string{"A": "d"}, Fallback: c.fallback})
		require.NoError(t, err)
		values, unresolved, skip := r.Resolve(none)
		require.Equal(t, c.skip, skip, c.fallback)
		require.Equal(t, c.unresolved, unresolved, c.fallback)
		require.Equal(t, c.text, r.Render(values).Text, c.fallback)
	}
}

func FuzzRender(f *testing.F) {
	for _, s := range []string{"", "{A}", "{{A}}", "{{{A}}}", "{A", "}{", "{_}", "{A1}{A}", "\xff{A}\x00"} {
		f.Add(s, "value {A}")
	}
	f.Add(strings.Repeat("{A}", 200), strings.Repeat("<&>\"'", 100))
	f.Fuzz(func(t *testing.T, text, value string) {
		r, err := messaging.NewRenderer(messaging.Snapshot{Subject: text, Body: text, HTMLBody: text})
		if err != nil {
			return
		}
		values, _, _ := r.Resolve(func(string) (string, bool) { return value, true })
		out := r.Render(values)
		require.NotContains(t, out.Subject, "\n")
		require.NotContains(t, out.Subject, "\r")
		longest := max(len(out.Subject)-messaging.MaxSubject, len(out.Text)-messaging.MaxText, len(out.HTML)-messaging.MaxHTML)
		if excess := r.Excess(messaging.TypeEmail, values); excess == "" {
			require.LessOrEqual(t, longest, 0, "what fits is rendered to what fits")
		} else if len(out.Subject) == len(out.Text) { // line breaks of a subject may go
			require.Positive(t, longest, excess)
		}
		if len(r.Variables()) == 0 && !strings.Contains(text, "{{") {
			require.Equal(t, text, out.Text)
		}
		require.Equal(t, out, r.Render(values), "rendering is deterministic")
	})
}

func TestDecide(t *testing.T) {
	t.Parallel()
	c := &messaging.Channel{RetryCount: 2, RetryInterval: 60, OnUnknown: messaging.UnknownHold}
	resend := &messaging.Channel{RetryCount: 2, RetryInterval: 60, OnUnknown: messaging.UnknownResend}
	fail := func(class channel.Class) channel.Result {
		return channel.Result{Outcome: channel.Rejected, Class: class, Code: "550", Text: "no"}
	}
	for name, tt := range map[string]struct {
		result   channel.Result
		channel  *messaging.Channel
		attempts int32
		status   string
		code     string
		attempt  bool
		retry    time.Duration
	}{
		"sent":               {channel.Result{Outcome: channel.Accepted, Class: channel.ClassOK, ProviderIDs: []string{"x"}}, c, 0, messaging.MessageSent, "", true, 0},
		"first transient":    {fail(channel.ClassTransient), c, 0, messaging.MessageFailed, "transient", true, 45 * time.Second},
		"second transient":   {fail(channel.ClassTransient), c, 1, messaging.MessageFailed, "transient", true, 90 * time.Second},
		"asked to wait":      {channel.Result{Outcome: channel.Rejected, Class: channel.ClassTransient, Code: "503", Text: "no", RetryAfter: 2 * time.Minute}, c, 0, messaging.MessageFailed, "transient", true, 2 * time.Minute},
		"last transient":     {fail(channel.ClassTransient), c, 2, messaging.MessagePermanentlyFailed, "transient", true, 0},
		"deferred":           {fail(channel.ClassDeferred), c, 0, messaging.MessageFailed, "deferred", true, 225 * time.Second},
		"deferred again":     {fail(channel.ClassDeferred), c, 1, messaging.MessageFailed, "deferred", true, 450 * time.Second},
		"deferred too often": {fail(channel.ClassDeferred), c, 2, messaging.MessagePermanentlyFailed, "deferred", true, 0},
		"deferred, a hint":   {channel.Result{Outcome: channel.Rejected, Class: channel.ClassDeferred, RetryAfter: 20 * time.Minute}, c, 0, messaging.MessageFailed, "deferred", true, 20 * time.Minute},
		"refused":            {fail(channel.ClassRefused), c, 0, messaging.MessageFailed, "refused", true, 225 * time.Second},
		"refused again":      {fail(channel.ClassRefused), c, 1, messaging.MessagePermanentlyFailed, "refused", true, 0},
		"recipient":          {fail(channel.ClassPermanentRecipient), c, 0, messaging.MessagePermanentlyFailed, "permanent_recipient", true, 0},
		"opted out":          {fail(channel.ClassOptedOut), c, 0, messaging.MessagePermanentlyFailed, "opted_out", true, 0},
		"throttled":          {channel.Result{Outcome: channel.Rejected, Class: channel.ClassRateLimited, RetryAfter: 7 * time.Second}, c, 2, messaging.MessageQueued, "rate_limited", false, 7 * time.Second},
		"throttled, no hint": {fail(channel.ClassRateLimited), c, 2, messaging.MessageQueued, "rate_limited", false, messaging.DefaultPause},
		"config":             {channel.Fail(channel.ClassConfig, "535", "login"), c, 2, messaging.MessageQueued, "config", false, messaging.MendedCheck},
		"billing":            {channel.Fail(channel.ClassBilling, "402", "money"), c, 2, messaging.MessageQueued, "billing", false, messaging.MendedCheck},
		"unknown, held":      {channel.Lost("eof", "lost"), c, 0, messaging.MessagePermanentlyFailed, messaging.CodeOutcomeUnknown, true, 0},
		"unknown, resent":    {channel.Lost("eof", "lost"), resend, 0, messaging.MessageFailed, messaging.CodeOutcomeUnknown, true, 45 * time.Second},
		"unknown, used up":   {channel.Lost("eof", "lost"), resend, 2, messaging.MessagePermanentlyFailed, messaging.CodeOutcomeUnknown, true, 0},
		"no class at all":    {channel.Result{}, c, 0, messaging.MessagePermanentlyFailed, messaging.CodeOutcomeUnknown, true, 0},
	} {
		o := messaging.Decide(tt.result, tt.channel, tt.attempts, 0.5)
		require.Equal(t, tt.status, o.Status, name)
		require.Equal(t, tt.code, o.Code, name)
		require.Equal(t, tt.attempt, o.Attempt != "", name)
		require.Equal(t, tt.retry, o.RetryIn, name)
	}
}

// TestGreylisting: a channel as it is made waits long enough for a server that greylists
// (RFC 6647, section 5), and longer each time, whatever chance says.
func TestGreylisting(t *testing.T) {
	t.Parallel()
	c := &messaging.Channel{RetryCount: 3, RetryInterval: 60}
	for _, random := range []float64{0, 0.5, 0.999} {
		sum := time.Duration(0)
		for attempts := range c.RetryCount {
			o := messaging.Decide(channel.Result{Outcome: channel.Rejected, Class: channel.ClassDeferred}, c, attempts, random)
			require.Equal(t, messaging.MessageFailed, o.Status)
			sum += o.RetryIn
		}
		require.GreaterOrEqual(t, sum, 15*time.Minute)
	}
}

func TestIDsAt(t *testing.T) {
	t.Parallel()
	at := time.UnixMilli(1_790_000_000_123)
	last := ""
	for _, first := range []int{0, 3, 1 << 18, 1<<30 - 2} {
		for _, id := range messaging.IDsAt(at, first, 2) {
			u, err := uuid.Parse(id)
			require.NoError(t, err)
			require.Equal(t, uuid.Version(7), u.Version())
			require.Equal(t, uuid.RFC4122, u.Variant())
			sec, nsec := u.Time().UnixTime()
			require.Equal(t, at.UnixMilli(), time.Unix(sec, nsec).UnixMilli())
			require.Greater(t, id, last, "ascending")
			last = id
		}
	}
}

// TestIDsInRow: by their first and last one, no message is found that is not among them.
func TestIDsInRow(t *testing.T) {
	t.Parallel()
	for _, first := range []int{0, 1<<18 - 3, 1 << 20} {
		ids := messaging.IDsAt(time.UnixMilli(1_790_000_000_123), first, 6)
		require.True(t, messaging.AreInRow(ids))
		require.True(t, messaging.AreInRow(ids[2:3]))
		require.True(t, messaging.AreInRow(ids[1:5]))
		require.False(t, messaging.AreInRow([]string{ids[0], ids[2]}), "one between")
		require.False(t, messaging.AreInRow([]string{ids[0], ids[1], ids[4], ids[5]}), "two between")
		require.False(t, messaging.AreInRow([]string{ids[0], ids[4], ids[2]}), "as many as from the first to the last, but others")
		require.False(t, messaging.AreInRow([]string{ids[1], ids[0]}))
		later := messaging.IDsAt(time.UnixMilli(1_790_000_000_124), first+6, 1)
		require.False(t, messaging.AreInRow([]string{ids[5], later[0]}), "of another send")
	}
}

func TestResend(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		g       messaging.GroupMessage
		unknown bool
		want    int32
		take    []string
	}{
		"still running":              {messaging.GroupMessage{Status: messaging.GroupProcessing, Failed: 3}, false, 0, nil},
		"a draft":                    {messaging.GroupMessage{Status: messaging.GroupDraft}, false, 0, nil},
		"nothing failed":             {messaging.GroupMessage{Status: messaging.GroupCompleted, Sent: 5}, true, 0, nil},
		"some failed":                {messaging.GroupMessage{Status: messaging.GroupPartiallyFailed, Failed: 3, Unknown: 1}, false, 2, nil},
		"some failed, unknown too":   {messaging.GroupMessage{Status: messaging.GroupPartiallyFailed, Failed: 3, Unknown: 1}, true, 3, nil},
		"all unknown":                {messaging.GroupMessage{Status: messaging.GroupFailed, Failed: 2, Unknown: 2}, false, 0, nil},
		"cancelled, some had failed": {messaging.GroupMessage{Status: messaging.GroupCancelled, Failed: 1, Cancelled: 4}, false, 1, nil},
		"cancelled, some are out":    {messaging.GroupMessage{Status: messaging.GroupCancelled, Failed: 1, Pending: 1}, false, 0, nil},
		"the cancelled ones":         {messaging.GroupMessage{Status: messaging.GroupCancelled, Failed: 1, Cancelled: 4}, true, 4, []string{"cancelled"}},
		"both":                       {messaging.GroupMessage{Status: messaging.GroupCancelled, Failed: 3, Unknown: 2, Cancelled: 4}, false, 5, []string{"failed", "cancelled"}},
		"none was cancelled":         {messaging.GroupMessage{Status: messaging.GroupFailed, Failed: 3, Unknown: 3}, true, 0, []string{"cancelled"}},
	} {
		got, err := tt.g.Resend(messaging.Resending{IncludeUnknown: tt.unknown, Statuses: tt.take})
		require.Equal(t, tt.want == 0, err != nil, name)
		if err == nil {
			require.Equal(t, tt.want, got.Addresses, name)
		}
	}
}

func TestGroupMessageRules(t *testing.T) {
	t.Parallel()
	for status, can := range map[string]struct{ send, cancel, remove bool }{
		messaging.GroupDraft: {true, true, true}, messaging.GroupScheduled: {false, true, false}, messaging.GroupQueued: {false, true, false},
		messaging.GroupProcessing: {false, true, false}, messaging.GroupCompleted: {false, false, true},
		messaging.GroupPartiallyFailed: {false, false, true}, messaging.GroupFailed: {false, false, true}, messaging.GroupCancelled: {false, false, false},
	} {
		g := &messaging.GroupMessage{Status: status, Pending: 1}
		require.Equal(t, can.send, g.MaySend() == nil, status)
		require.Equal(t, can.cancel, g.MayCancel() == nil, status)
		require.Equal(t, can.remove, g.MayDelete() == nil, status)
	}
}
