package app

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/gateway/rest"
)

func TestConnections(t *testing.T) {
	t.Parallel()
	for files, want := range map[uint64][2]int{
		1024:    {896, 672},
		20_000:  {17_500, 13_125},
		1 << 20: {maxConnections, rest.MaxStreams},
		1 << 63: {maxConnections, rest.MaxStreams},
	} {
		all, streams := connections(files)
		require.Equal(t, want, [2]int{all, streams}, "%d files", files)
	}
	require.NotZero(t, openFiles())
}
