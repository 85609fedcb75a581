package messaging_test

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/services/messaging"
)

// TestValuesAsJSON: what is stored of values is read back as they were.
func TestValuesAsJSON(t *testing.T) {
	t.Parallel()
	for _, v := range []messaging.Values{nil, {}, {"A": ""}, {"A": "plain text", "B_1": "{\"x\": \"\\n\"}", "C": "ሰላም, <b>you</b> & \u2028", "D": "tab\tand\x7f"}} {
		var back messaging.Values
		raw := v.AppendJSON(nil)
		require.NoError(t, json.Unmarshal(raw, &back), "%s", raw)
		require.Len(t, back, len(v))
		for name, text := range v {
			require.Equal(t, text, back[name])
		}
	}
}
