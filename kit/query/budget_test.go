package query

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestBudgetOfTotals: what is counted for how long.
func TestBudgetOfTotals(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		rows     int
		took     time.Duration
		expected int64
		budget   time.Duration
	}{
		{50, time.Millisecond, few + 1, 50 * time.Millisecond},
		{50, 30 * time.Millisecond, 10_000, 30 * time.Millisecond},
		{500, 100 * time.Millisecond, 1000, 20 * time.Millisecond},
		{500, 100 * time.Millisecond, 1001, 0},
		{0, 100 * time.Millisecond, few, 50 * time.Millisecond},
		{0, 100 * time.Millisecond, few + 1, 0},
		{50, time.Millisecond, hopeless, 50 * time.Millisecond},
		{50, time.Millisecond, hopeless + 1, 0},
	} {
		require.Equal(t, c.budget, found{rows: c.rows, took: c.took}.budget(c.expected), "%+v", c)
	}
}
