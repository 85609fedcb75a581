package email

import (
	"encoding/csv"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestReplies: every reply of the table has the class that its source gives a reason for.
func TestReplies(t *testing.T) {
	t.Parallel()
	file, err := os.Open("testdata/replies.csv")
	require.NoError(t, err)
	rows, err := csv.NewReader(file).ReadAll()
	require.NoError(t, err)
	require.NoError(t, file.Close())
	stages := map[string]stage{}
	for at := stageGreeting; at <= stageEnd; at++ {
		stages[at.String()] = at
	}
	for _, row := range rows[1:] {
		at, ok := stages[row[0]]
		require.True(t, ok, "%s is a stage", row[0])
		code, err := strconv.Atoi(row[1][:3])
		require.NoError(t, err)
		s, text := cutStatus([]byte(row[1][4:]))
		require.Equal(t, row[2], classify(at, code, s, text).String(), "%s at %s", row[1], row[0])
		require.NotEmpty(t, strings.TrimSpace(row[3]), "the source of %s", row[1])
	}
	require.GreaterOrEqual(t, len(rows)-1, 60)
}
