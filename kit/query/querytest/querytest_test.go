package querytest

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestRowsReadAreCountedPerLoopAndOnce(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		plan string
		want int
	}{
		"what a filter throws away was read": {`{"Node Type": "Seq Scan", "Relation Name": "t", "Actual Rows": 2, "Actual Loops": 1, "Rows Removed by Filter": 98}`, 100},
		"each loop reads":                    {`{"Node Type": "Index Scan", "Relation Name": "t", "Actual Rows": 1, "Actual Loops": 40, "Rows Removed by Filter": 2}`, 120},
		"a bitmap's rows were read by its index": {`{"Node Type": "Limit", "Actual Rows": 5, "Actual Loops": 1, "Plans": [
			{"Node Type": "Bitmap Heap Scan", "Relation Name": "t", "Actual Rows": 5, "Actual Loops": 1, "Rows Removed by Filter": 25, "Rows Removed by Index Recheck": 7,
			 "Plans": [{"Node Type": "Bitmap Index Scan", "Index Name": "i", "Actual Rows": 30, "Actual Loops": 1}]}]}`, 37},
		"a step that reads no table reads nothing": {`{"Node Type": "Function Scan", "Actual Rows": 50, "Actual Loops": 1}`, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var n node
			require.NoError(t, json.Unmarshal([]byte(c.plan), &n))
			require.Equal(t, c.want, n.read())
		})
	}
}
