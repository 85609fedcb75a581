package demo

import (
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/kit/clock"
)

// TestSettle holds messages against a journal that does not agree with them.
func TestSettle(t *testing.T) {
	t.Parallel()
	to := func(address, status string) row { return row{Address: address, Status: status} }
	unknown := to("u@x", "permanently_failed")
	unknown.Error.Code = "outcome_unknown"
	for name, tt := range map[string]struct {
		rows    []row
		journal string
		want    []string
	}{
		"all as it should be": {
			[]row{to("a@x", "sent"), to("b@x", "permanently_failed"), to("c@x", "cancelled"), unknown},
			`{"n":2,"to":"a@x"}` + "\n" + `{"n":3,"to":"u@x"}` + "\n", nil,
		},
		"before the step, and being written": {[]row{to("a@x", "sent")}, `{"n":1,"to":"z@x"}` + "\n" + `{"n":2,"to":"a@x"}` + "\n" + `{"n":3,"t`, nil},
		"the code of another step":           {nil, `{"n":2,"to":"` + otpPhone + `"}` + "\n", nil},
		"lost":                               {[]row{to("a@x", "sent")}, "", []string{"s: 1 messages were sent and are not in the provider's journal"}},
		"not sent":                           {[]row{to("a@x", "cancelled")}, `{"n":2,"to":"a@x"}` + "\n", []string{"s: the provider took messages for 1 recipients that were not sent"}},
		"twice":                              {[]row{to("a@x", "sent")}, `{"n":2,"to":"a@x"}` + "\n" + `{"n":3,"to":"a@x"}` + "\n", []string{"s: the provider took 1 messages twice"}},
		"no outcome":                         {[]row{to("a@x", "queued")}, "", []string{"s: 1 accepted are not 0 sent + 0 failed + 0 cancelled"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			journal := filepath.Join(t.TempDir(), "journal")
			require.NoError(t, os.WriteFile(journal, []byte(tt.journal), 0o600))
			played := &tour{player: newPlayer(Config{Out: io.Discard}), cfg: TourConfig{Journal: journal}}
			s := &TourStep{Step: "s", since: 1}
			s.count(tt.rows)
			require.NoError(t, played.settle(s, tt.rows))
			require.Equal(t, tt.want, played.report.Problems)
			if tt.want != nil {
				require.ErrorContains(t, played.report.Err(), tt.want[0])
				return
			}
			require.NoError(t, played.report.Err())
		})
	}
}

// TestUntilGivesUp: a step that nothing comes of ends.
func TestUntilGivesUp(t *testing.T) {
	t.Parallel()
	fake := clock.NewFake(time.Unix(0, 0))
	played := &tour{player: newPlayer(Config{Out: io.Discard, Clock: fake})}
	played.cfg.Clock = fake
	looked := 0
	err := played.until(t.Context(), "nothing", func() (bool, error) {
		looked++
		fake.Advance(2 * giveUp)
		return false, nil
	})
	require.ErrorContains(t, err, "for nothing")
	require.Equal(t, 1, looked)
}
