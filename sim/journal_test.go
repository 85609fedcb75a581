package sim

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func runJournal(t testing.TB) (*journal, string, func()) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "journal")
	j, err := openJournal(path)
	require.NoError(t, err)
	done := make(chan error, 1)
	go func() { done <- j.run() }()
	return j, path, func() {
		require.NoError(t, j.close())
		require.NoError(t, <-done)
	}
}

func TestJournalTakesConcurrentRecords(t *testing.T) {
	t.Parallel()
	j, path, stop := runJournal(t)
	var group sync.WaitGroup
	for worker := range 16 {
		group.Go(func() {
			for i := range 50 {
				to := []string{fmt.Sprintf("%d.%d@x.test", worker, i), "both@x.test"}
				if _, err := j.append(entry{time: time.Unix(0, 0), to: to, messageID: fmt.Appendf(nil, "%d.%d", worker, i), bytes: 3}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	sum, err := ReadJournal(path)
	require.NoError(t, err)
	require.Equal(t, Summary{Received: 1600, Distinct: 1600}, sum)
	stop()
	_, err = j.append(entry{time: time.Unix(0, 0), to: []string{"late@x.test"}})
	require.ErrorIs(t, err, errJournalClosed)
}

func TestJournalReportsAFullDisk(t *testing.T) {
	t.Parallel()
	j, _, _ := runJournal(t)
	require.NoError(t, j.file.Close())
	_, err := j.append(entry{time: time.Unix(0, 0), to: []string{"a@x.test"}})
	require.ErrorContains(t, err, "write journal")
	_, err = j.append(entry{time: time.Unix(0, 0), to: []string{"b@x.test"}})
	require.ErrorContains(t, err, "write journal")
}

func TestRecordsNamesABadLine(t *testing.T) {
	t.Parallel()
	_, err := summarize(Records(strings.NewReader("{\"n\":1}\nnonsense\n{\"n\":3}\n")))
	require.ErrorContains(t, err, "line 2")
}

func FuzzRecords(f *testing.F) {
	good := appendRecord(nil, &entry{time: time.Unix(1, 0), messageID: []byte("1@x"), bytes: 10, sum: 0xdeadbeef}, 1, "a@x.test")
	f.Add(good)
	f.Add(append(good, good[:10]...))
	f.Add([]byte("\n\n"))
	f.Add([]byte(`{"n":-1,"to":"\u0000"}` + "\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		torn := len(data) > 0 && data[len(data)-1] != '\n'
		var last error
		count := 0
		for _, err := range Records(bytes.NewReader(data)) {
			require.NoError(t, last, "nothing follows an error")
			last = err
			count++
		}
		require.LessOrEqual(t, count, bytes.Count(data, []byte("\n"))+1)
		if errors.Is(last, ErrTorn) {
			require.True(t, torn)
		}
		sum, err := summarize(Records(bytes.NewReader(data)))
		if err == nil {
			require.Equal(t, sum.Received, sum.Distinct+sum.Duplicates)
		}
	})
}

// FuzzRecord writes what a stranger may send and reads it back.
func FuzzRecord(f *testing.F) {
	f.Add("a@x.test", "1@x")
	f.Add("\x00\n\"\\", "\xff")
	f.Fuzz(func(t *testing.T, to, id string) {
		e := entry{time: time.UnixMilli(1767225600123), messageID: []byte(id), provider: "p", providerID: id, bytes: 10, sum: 0x00c0ffee}
		line := appendRecord(nil, &e, 7, to)
		require.Equal(t, 1, bytes.Count(line, []byte("\n")))
		for record, err := range Records(bytes.NewReader(line)) {
			require.NoError(t, err)
			require.Equal(t, string([]rune(to)), record.To)
			require.Equal(t, "00c0ffee", record.CRC32C)
			require.Equal(t, record.MessageID, record.ProviderID)
			require.EqualValues(t, 1767225600123, record.Time.UnixMilli())
		}
	})
}

func BenchmarkJournal(b *testing.B) {
	j, _, stop := runJournal(b)
	defer stop()
	b.SetParallelism(16)
	b.RunParallel(func(pb *testing.PB) {
		to, id := []string{"somebody@example.test"}, []byte("0190a000-0000-7000-8000-000000000001@sender.example")
		for pb.Next() {
			if _, err := j.append(entry{time: time.Unix(0, 0), to: to, messageID: id, bytes: 500, sum: 1}); err != nil {
				b.Fatal(err)
			}
		}
	})
}
