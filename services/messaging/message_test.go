package messaging_test

import (
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/services/messaging"
	"github.com/turumba/turumba/services/messaging/channel"
)

func TestCheckAddress(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ kind, in, country, want string }{
		{"email", " a@example.org ", "", "a@example.org"},
		{"email", "ünï@exämple.org", "", "ünï@exämple.org"},
		{"email", "A <a@example.org>", "", ""},
		{"email", "a@example.org, b@example.org", "", ""},
		{"email", "a@b@c", "", ""},
		{"email", "a@example.org\r\nBcc: b@example.org", "", ""},
		{"email", "", "", ""},
		{"email", strings.Repeat("a", 250) + "@b.org", "", ""},
		{"sms", "+251 911 00-00.00", "", "+251911000000"},
		{"sms", "00251911000000", "", "+251911000000"},
		{"sms", "0911000000", "+251", "+251911000000"},
		{"sms", "911000000", "+251", "+251911000000"},
		{"sms", "251911000001", "+251", "+251911000001"},
		{"sms", "+251 (0) 911 000 130", "", "+251911000130"},
		{"smpp", "1 (555) 000-2222", "+1", "+15550002222"},
		{"sms", "0911000000", "", ""},
		{"sms", "+0911000000", "", ""},
		{"sms", "+12", "", ""},
		{"sms", "+1234567890123456", "", ""},
		{"whatsapp", "+25191100000x", "", ""},
		{"telegram", "-1001234", "", "-1001234"},
		{"telegram", "a b", "", ""},
		{"messenger", "", "", ""},
	} {
		got, err := messaging.CheckAddress(c.kind, c.in, c.country)
		if c.want == "" {
			require.Error(t, err, "%s %q", c.kind, c.in)
			continue
		}
		require.NoError(t, err, "%s %q", c.kind, c.in)
		require.Equal(t, c.want, got, "%s %q", c.kind, c.in)
	}
}

func TestPickChannel(t *testing.T) {
	t.Parallel()
	make1 := func(id, kind, status string, priority int32, enabled bool) *messaging.Channel {
		return &messaging.Channel{ID: id, ChannelType: kind, Status: status, Priority: priority, IsEnabled: enabled}
	}
	off := make1("1", "email", messaging.ChannelConnected, 99, false)
	broken := make1("2", "email", messaging.ChannelError, 50, true)
	low := make1("3", "email", messaging.ChannelDisconnected, 1, true)
	high := make1("5", "email", messaging.ChannelConnected, 2, true)
	twin := make1("4", "email", messaging.ChannelConnected, 2, true)
	other := make1("6", "sms", messaging.ChannelConnected, 90, true)
	for name, c := range map[string]struct {
		list []*messaging.Channel
		want *messaging.Channel
	}{
		"none":                                 {nil, nil},
		"one that is off":                      {[]*messaging.Channel{off, other}, nil},
		"the highest priority":                 {[]*messaging.Channel{off, low, high, other}, high},
		"the older one of two":                 {[]*messaging.Channel{high, twin}, twin},
		"not the broken one":                   {[]*messaging.Channel{broken, low}, low},
		"the broken one where no other can do": {[]*messaging.Channel{off, broken, other}, broken},
	} {
		require.Same(t, c.want, messaging.PickChannel(c.list, "email", time.Unix(1000, 0)), name)
	}
}

func TestSplitConnections(t *testing.T) {
	t.Parallel()
	for n, want := range map[int32][2]int32{1: {1, 1}, 2: {1, 1}, 3: {1, 2}, 4: {1, 3}, 8: {2, 6}, 64: {16, 48}} {
		c := &messaging.Channel{Connections: n}
		transactional, bulk := c.SplitConnections()
		require.Equal(t, want, [2]int32{transactional, bulk}, "%d", n)
	}
}

func TestCompose(t *testing.T) {
	t.Parallel()
	r, err := messaging.NewRenderer(messaging.Snapshot{Subject: "{A}", Body: "{A} {B}", Fallback: messaging.FallbackSkip})
	require.NoError(t, err)
	text := r.Compose(messaging.TypeEmail, messaging.Sources{Custom: map[string]string{"A": "one", "C": "unused"}}, messaging.Recipient{Attributes: map[string]string{"B": "two"}})
	require.NoError(t, text.Complete("custom_values"))
	require.Equal(t, messaging.Rendered{Subject: "one", Text: "one two"}, text.Rendered)
	require.Equal(t, messaging.Values{{Name: "A", Text: "one"}, {Name: "B", Text: "two"}}, text.Values)
	text = r.Compose(messaging.TypeEmail, messaging.Sources{}, messaging.Recipient{})
	require.Equal(t, []string{"A", "B"}, text.Unresolved)
	require.Equal(t, messaging.SkipUnresolved, text.SkipReason())
	err = text.Complete("custom_values")
	require.True(t, apierr.HasReason(err, errorv1.Reason_REASON_VALIDATION_FAILED))
	require.Equal(t, apierr.Field{Field: "custom_values", Message: "no value for A, B"}, apierr.From(err).Fields[0])

	text = messaging.Plain("sms", channel.Capabilities{}, "", "{A} stays")
	require.Equal(t, messaging.Composed{Rendered: messaging.Rendered{Text: "{A} stays"}}, text)
	text = messaging.Plain("sms", channel.Capabilities{}, "", strings.Repeat("x", 1531))
	require.ErrorContains(t, text.Complete("message_body"), "the request is not valid")
	require.Equal(t, messaging.SkipTooLong, text.SkipReason())
	require.Empty(t, text.Text, "nothing is rendered")
}

// TestExcess: short values do not blow a template up.
func TestExcess(t *testing.T) {
	t.Parallel()
	many := strings.Repeat("{A}", 1024)
	for name, c := range map[string]struct {
		channelType    string
		snapshot       messaging.Snapshot
		value, longest string
	}{
		"subject":              {"email", messaging.Snapshot{Subject: "{A}{A}{A}{A}"}, "x", strings.Repeat("x", 1024)},
		"text":                 {"email", messaging.Snapshot{Body: many}, "", strings.Repeat("x", 64)},
		"HTML":                 {"email", messaging.Snapshot{HTMLBody: many}, "", strings.Repeat("x", 512)},
		"HTML that is escaped": {"email", messaging.Snapshot{HTMLBody: many + strings.Repeat("y", 2048)}, "", strings.Repeat("<", 127) + "xx"},
		"SMS of GSM-7":         {"sms", messaging.Snapshot{Body: "{A}"}, "", strings.Repeat("x", 1530)},
		"SMS of UCS-2":         {"smpp", messaging.Snapshot{Body: "{A}"}, "", strings.Repeat("ሰ", 670)},
		"of any channel":       {"", messaging.Snapshot{Body: many}, strings.Repeat("x", 11), strings.Repeat("x", 64)},
	} {
		r, err := messaging.NewRenderer(c.snapshot)
		require.NoError(t, err)
		require.Empty(t, r.Excess(c.channelType, messaging.Values{{Name: "A", Text: c.value}}), name)
		require.Empty(t, r.Excess(c.channelType, messaging.Values{{Name: "A", Text: c.longest}}), name)
		require.NotEmpty(t, r.Excess(c.channelType, messaging.Values{{Name: "A", Text: c.longest + "x"}}), name)
	}
	sms := &messaging.Template{ChannelType: "sms", Body: strings.Repeat("x", 1531) + "{A}"}
	require.True(t, apierr.HasReason(sms.Prepare(), errorv1.Reason_REASON_TEMPLATE_INVALID), "no value makes it short enough")
	sms.ChannelType = ""
	require.NoError(t, sms.Prepare())
	require.NoError(t, sms.Fits(messaging.TypeEmail, channel.Capabilities{}))
	require.Error(t, sms.Fits("smpp", channel.Capabilities{}), "a send by SMS would reach nobody")
}

// TestStatesAreDrawn holds the picture in docs/states.md to the table.
func TestStatesAreDrawn(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/states.md")
	require.NoError(t, err)
	_, section, ok := strings.Cut(string(page), "## Message\n")
	require.True(t, ok)
	section, _, ok = strings.Cut(section, "## Group message\n")
	require.True(t, ok)
	drawn := map[[2]string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^ {4}(\[\*\]|[a-z_]+) --> ([a-z_]+)$`).FindAllStringSubmatch(section, -1) {
		drawn[[2]string{strings.TrimPrefix(m[1], "[*]"), m[2]}] = true
	}
	for _, from := range append([]string{""}, messaging.MessageStatuses()...) {
		for _, to := range messaging.MessageStatuses() {
			require.Equal(t, messaging.MayBecome(from, to), drawn[[2]string{from, to}], "%q to %q", from, to)
		}
	}
}

func TestEstimate(t *testing.T) {
	t.Parallel()
	e := messaging.NewEstimate("sms")
	e.Add(messaging.Rendered{Text: strings.Repeat("a", 161)})
	e.Add(messaging.Rendered{Text: "ሰላም"})
	e.Add(messaging.Rendered{Text: "short"})
	e.Miss([]string{"B", "A"})
	e.Miss([]string{"A", "C"})
	require.Equal(t, []any{messaging.EncodingUCS2, 161, 2, 4, 3, []string{"B", "A", "C"}}, []any{e.Encoding, e.Units, e.Segments, e.Total, e.Recipients, e.Unresolved})
	require.Len(t, e.Sample.Text, 161)

	e = messaging.NewEstimate("email")
	e.Add(messaging.Rendered{Text: strings.Repeat("ሰ", 1000)})
	require.Equal(t, []any{messaging.Encoding(""), 0, 1, 1}, []any{e.Encoding, e.Units, e.Segments, e.Total})
}

// TestAdapterLimits: what an adapter cannot carry is known before it is sent.
func TestAdapterLimits(t *testing.T) {
	t.Parallel()
	caps := channel.Capabilities{MaxText: 10}
	r, err := messaging.NewRenderer(messaging.Snapshot{Body: "1234{A}"})
	require.NoError(t, err)
	require.Empty(t, r.On(caps).Excess("telegram", messaging.Values{{Name: "A", Text: "ünïçöd"}}), "characters, not bytes")
	require.Equal(t, "the text has 11 characters, at most 10 can be sent on this channel", r.On(caps).Excess("telegram", messaging.Values{{Name: "A", Text: "ünïçödé"}}))
	require.Empty(t, r.Excess("telegram", messaging.Values{{Name: "A", Text: "ünïçödé"}}))
	err = messaging.Plain("telegram", caps, "", strings.Repeat("x", 11)).Complete("message_body")
	e := apierr.From(err)
	require.Equal(t, errorv1.Reason_REASON_VALIDATION_FAILED, e.Reason)
	require.Equal(t, "message_body", e.Fields[0].Field)
	long := &messaging.Template{Body: strings.Repeat("x", 11)}
	require.Error(t, long.Fits("telegram", caps))
	require.NoError(t, long.Fits("telegram", channel.Capabilities{}))
}
