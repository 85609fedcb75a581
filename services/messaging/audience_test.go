package messaging_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/services/messaging"
)

func audience(t *testing.T, exclude ...string) *messaging.Audience {
	t.Helper()
	r, err := messaging.NewRenderer(messaging.Snapshot{Body: "Hi {NAME} {CITY}"})
	require.NoError(t, err)
	return messaging.NewAudience(&messaging.GroupMessage{ExcludeContactIDs: exclude}, messaging.TypeEmail, "", r, messaging.Sources{})
}

func none([]string) (map[string]bool, error) { return nil, nil }

func stream(list ...messaging.Recipient) func(func([]messaging.Recipient) error) error {
	return func(each func([]messaging.Recipient) error) error { return each(list) }
}

func TestAudienceSorts(t *testing.T) {
	t.Parallel()
	a := audience(t, "c1")
	a.Left = messaging.WalkMembers(stream(messaging.Recipient{ContactID: "c2"}, messaging.Recipient{ContactID: "c9"}))
	defer a.Left.Stop()
	to, skips, err := a.Sort([]messaging.Recipient{
		{AddressID: "a1", Given: "A@example.org", Name: "A"},
		{AddressID: "a2", Given: "nowhere"},
		{AddressID: "a3", Given: "out@example.org"},
		{ContactID: "c1", Email: "c1@example.org"},
		{ContactID: "c2", Email: "c2@example.org"},
		{ContactID: "c3"},
		{ContactID: "c4", Email: "a@example.org"},
		{ContactID: "c5", Email: "c5@example.org", Attributes: map[string]string{"CITY": "Jimma"}},
	}, func([]string) (map[string]bool, error) { return map[string]bool{"out@example.org": true}, nil })
	require.NoError(t, err)
	require.Len(t, to, 2)
	require.Equal(t, "a1", to[0].AddressID)
	require.Equal(t, "c5", to[1].ContactID)
	got := map[string]string{}
	for _, s := range skips {
		got[s.ID] = s.Reason
	}
	require.Equal(t, map[string]string{
		"a2": messaging.SkipInvalidAddress, "a3": messaging.SkipOptedOut, "c1": messaging.SkipExcluded, "c2": messaging.SkipExcluded,
		"c3": messaging.SkipNoAddress, "c4": messaging.SkipDuplicateAddress,
	}, got)
	require.Equal(t, 3, a.Missing["CITY"])
}

func TestAudienceWhoseLeftOutGroupBreaks(t *testing.T) {
	t.Parallel()
	broken := errors.New("the stream broke")
	a := audience(t)
	a.Left = messaging.WalkMembers(func(func([]messaging.Recipient) error) error { return broken })
	defer a.Left.Stop()
	_, _, err := a.Sort([]messaging.Recipient{{ContactID: "c1", Email: "c1@example.org"}}, none)
	require.ErrorIs(t, err, broken)
}

func TestDryRunEnds(t *testing.T) {
	t.Parallel()
	at := time.Unix(1_790_000_000, 0)
	a := audience(t)
	d := messaging.NewDryRun(a, at)
	list := make([]messaging.Recipient, messaging.DryRunRecipients-1)
	for i := range list {
		list[i] = messaging.Recipient{ContactID: fmt.Sprint(i), Email: fmt.Sprintf("p%d@example.org", i)}
	}
	to, skips, err := a.Sort(list, none)
	require.NoError(t, err)
	d.Take(to, skips)
	require.False(t, d.Enough(at.Add(messaging.DryRunTime)))
	require.True(t, d.Enough(at.Add(messaging.DryRunTime+1)), "by time")
	d.Take(nil, []messaging.Skip{{Reason: messaging.SkipNoAddress}})
	require.True(t, d.Enough(at), "by number")
	require.Len(t, d.Samples, 3)
	require.Equal(t, messaging.DryRunRecipients-1, d.Recipients)
	require.Equal(t, map[string]int{messaging.SkipNoAddress: 1}, d.Skips)
}

func TestBulkTime(t *testing.T) {
	t.Parallel()
	rate := int32(60)
	_, ok := (&messaging.Channel{}).BulkTime(10)
	require.False(t, ok)
	wait, ok := (&messaging.Channel{RateLimit: &rate}).BulkTime(540)
	require.True(t, ok)
	require.Equal(t, 10*time.Minute, wait.Round(time.Second))
}
