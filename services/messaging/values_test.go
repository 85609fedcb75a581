package messaging_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/services/messaging"
)

// TestValuesAsJSON: what is stored of values is read back as they were.
func TestValuesAsJSON(t *testing.T) {
	t.Parallel()
	for _, byName := range []map[string]string{nil, {}, {"A": ""}, {"D": "tab\tand\x7f", "B_1": "{\"x\": \"\\n\"}", "C": "ሰላም, <b>you</b> & \u2028", "A": "plain text"}} {
		v := messaging.ValuesOf(byName)
		raw := v.AppendJSON(nil)
		var read map[string]string
		require.NoError(t, json.Unmarshal(raw, &read), "%s", raw)
		require.Len(t, read, len(byName))
		for name, text := range byName {
			require.Equal(t, text, read[name])
		}
		var back messaging.Values
		require.NoError(t, json.Unmarshal(raw, &back))
		require.ElementsMatch(t, v, back)
		require.True(t, slices.IsSortedFunc(back, func(a, b messaging.Value) int { return strings.Compare(a.Name, b.Name) }))
	}
	var none messaging.Values
	require.NoError(t, json.Unmarshal([]byte("null"), &none))
	require.Nil(t, none)
}
