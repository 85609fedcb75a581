package sim

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"
	"time"
)

const timeLayout = "2006-01-02T15:04:05.000Z07:00"

var errJournalClosed = errors.New("journal is closed")

// journal appends records to a file and makes them durable in groups: while one
// fsync runs, the next group gathers.
type journal struct {
	file *os.File

	mu      sync.Mutex
	wake    sync.Cond
	next    int64
	pending []byte
	spare   []byte
	group   *commit
	closed  bool
	failed  error
}

// commit is one group of records; done is closed when they are durable or lost.
type commit struct {
	done chan struct{}
	err  error
}

func newCommit() *commit { return &commit{done: make(chan struct{})} }

// openJournal opens or creates the file, cuts off a torn last line (its message
// was never answered) and continues the numbering.
func openJournal(path string) (*journal, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	lines, size, err := measure(file)
	if err == nil {
		err = file.Truncate(size)
	}
	if err == nil {
		_, err = file.Seek(size, io.SeekStart)
	}
	if err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("continue journal: %w", err)
	}
	j := &journal{file: file, next: lines + 1, group: newCommit()}
	j.wake.L = &j.mu
	return j, nil
}

// measure returns the number of whole lines and where the last one ends.
func measure(r io.Reader) (lines, size int64, err error) {
	buffered := bufio.NewReaderSize(r, 256<<10)
	var offset int64
	for {
		part, err := buffered.ReadSlice('\n')
		offset += int64(len(part))
		switch {
		case err == nil:
			lines, size = lines+1, offset
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF):
			return lines, size, nil
		default:
			return 0, 0, err
		}
	}
}

// entry is what was accepted, for each of its recipients.
type entry struct {
	time                 time.Time
	to                   []string
	messageID            []byte
	provider, providerID string
	bytes                int
	sum                  uint32
}

// append writes one record per recipient and returns once they are on disk. first
// is the number of the first one.
func (j *journal) append(e entry) (first int64, err error) {
	j.mu.Lock()
	if j.closed || j.failed != nil {
		defer j.mu.Unlock()
		return 0, errors.Join(j.failed, closedError(j.closed))
	}
	first = j.next
	for _, recipient := range e.to {
		j.pending = appendRecord(j.pending, &e, j.next, recipient)
		j.next++
	}
	group := j.group
	j.wake.Signal()
	j.mu.Unlock()
	<-group.done
	return first, group.err
}

func closedError(closed bool) error {
	if closed {
		return errJournalClosed
	}
	return nil
}

// appendRecord appends one JSON line.
func appendRecord(b []byte, e *entry, n int64, to string) []byte {
	b = e.time.UTC().AppendFormat(append(b, `{"t":"`...), timeLayout)
	b = strconv.AppendInt(append(b, `","n":`...), n, 10)
	b = appendJSON(append(b, `,"to":`...), to)
	b = appendJSON(append(b, `,"message_id":`...), string(e.messageID))
	if e.provider != "" {
		b = appendJSON(append(b, `,"provider":`...), e.provider)
		b = appendJSON(append(b, `,"provider_id":`...), e.providerID)
	}
	b = strconv.AppendInt(append(b, `,"bytes":`...), int64(e.bytes), 10)
	b = append(b, `,"crc32c":"`...)
	for shift := 28; shift >= 0; shift -= 4 {
		b = append(b, "0123456789abcdef"[e.sum>>shift&15])
	}
	return append(b, "\"}\n"...)
}

// appendJSON appends s as a JSON string, quickly when it is plain.
func appendJSON(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= 0x7f || c == '"' || c == '\\' {
			quoted, _ := json.Marshal(s)
			return append(b, quoted...)
		}
	}
	return append(append(append(b, '"'), s...), '"')
}

// run writes groups until the journal is closed.
func (j *journal) run() error {
	for {
		data, group, more := j.take()
		if len(data) > 0 {
			group.err = j.flush(data)
			close(group.done)
		}
		if group.err != nil || !more {
			return errors.Join(group.err, j.file.Close())
		}
	}
}

// take waits for records and starts the next group.
func (j *journal) take() (data []byte, group *commit, more bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for len(j.pending) == 0 && !j.closed {
		j.wake.Wait()
	}
	data, group = j.pending, j.group
	j.pending, j.spare = j.spare[:0], data
	j.group = newCommit()
	return data, group, !j.closed
}

func (j *journal) flush(data []byte) error {
	_, err := j.file.Write(data)
	if err == nil {
		err = j.file.Sync()
	}
	if err == nil {
		return nil
	}
	err = fmt.Errorf("write journal: %w", err)
	j.mu.Lock()
	defer j.mu.Unlock()
	j.failed = err
	if len(j.pending) > 0 {
		j.group.err = err
		close(j.group.done)
	}
	return err
}

// close makes run end after the last group.
func (j *journal) close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.closed = true
	j.wake.Signal()
	return nil
}

// abandon closes a journal that never ran.
func (j *journal) abandon() error { return j.file.Close() }

// count returns how many records there are.
func (j *journal) count() int64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.next - 1
}

// trimID returns a Message-ID without spaces and angle brackets.
func trimID(id []byte) []byte {
	id = bytes.TrimSpace(id)
	if len(id) >= 2 && id[0] == '<' && id[len(id)-1] == '>' {
		id = id[1 : len(id)-1]
	}
	return id
}
