package process_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/kit/process"
)

// TestPaceOfCollection: what is left uncollected is bounded, but for half of what lives.
func TestPaceOfCollection(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		live       uint64
		most, want int
	}{
		{0, 400, 400},
		{30 << 20, 400, 400},
		{64 << 20, 400, 400},
		{128 << 20, 400, 200},
		{128 << 20, 200, 200},
		{256 << 20, 400, 100},
		{1 << 30, 400, 50},
		{1 << 30, 20, 20},
	} {
		require.Equal(t, c.want, process.PercentOf(c.live, c.most), "%d MiB", c.live>>20)
	}
}
