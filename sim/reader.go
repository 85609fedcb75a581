package sim

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"iter"
	"os"
	"time"
)

// maxRecord bounds one line of a journal.
const maxRecord = 1 << 20

// ErrTorn marks a last line without its end: the server stopped while writing
// it, so the message was never answered and does not count.
var ErrTorn = errors.New("last journal line is torn")

// Record is one accepted message for one recipient.
type Record struct {
	// Time is when the message had arrived, to the millisecond.
	Time time.Time `json:"t"`
	// N counts the records of the journal from 1.
	N int64 `json:"n"`
	// To is the recipient as given in RCPT, or the phone number.
	To string `json:"to"`
	// MessageID is the sender's own name for the message: the Message-ID without angle
	// brackets, or what an HTTP request carries for it; may be empty.
	MessageID string `json:"message_id"`
	// Provider is whose face took the message, for example "twilio"; empty for SMTP.
	Provider string `json:"provider,omitempty"`
	// ProviderID is the face's name for the message; empty for SMTP.
	ProviderID string `json:"provider_id,omitempty"`
	// Bytes is the size of the message after removing the stuffed dots, or of the text.
	Bytes int `json:"bytes"`
	// CRC32C is the checksum of those bytes, eight hexadecimal digits.
	CRC32C string `json:"crc32c"`
}

// Summary counts a journal. A message is one pair of Message-ID and recipient; where
// a face knows no reference of the sender's, the checksum stands for it.
type Summary struct {
	// Received is the number of records.
	Received int64
	// Distinct is the number of different messages.
	Distinct int64
	// Duplicates is Received - Distinct.
	Duplicates int64
}

// Records yields the records of a journal in order. A torn last line yields
// ErrTorn at the end; any other bad line yields an error naming it and ends the
// sequence.
func Records(r io.Reader) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		lines := bufio.NewReaderSize(r, 64<<10)
		for n := 1; ; n++ {
			line, err := readRecordLine(lines)
			if errors.Is(err, io.EOF) {
				return
			}
			var record Record
			if err == nil {
				if err = json.Unmarshal(line, &record); err != nil {
					err = fmt.Errorf("journal line %d: %w", n, err)
				}
			}
			if !yield(record, err) || err != nil {
				return
			}
		}
	}
}

// readRecordLine returns io.EOF at a clean end and ErrTorn within a line.
func readRecordLine(r *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		if err == nil && line == nil {
			return part, nil
		}
		line = append(line, part...)
		switch {
		case err == nil:
			return line, nil
		case errors.Is(err, io.EOF) && len(line) == 0:
			return nil, io.EOF
		case errors.Is(err, io.EOF):
			return nil, ErrTorn
		case !errors.Is(err, bufio.ErrBufferFull):
			return nil, fmt.Errorf("read journal: %w", err)
		case len(line) > maxRecord:
			return nil, errors.New("journal line is too long")
		}
	}
}

// ReadJournal counts the journal at path. It may be read while the server
// writes it. It keeps 16 bytes per message, so a million messages need some
// 40 MB.
func ReadJournal(path string) (Summary, error) {
	file, err := os.Open(path)
	if err != nil {
		return Summary{}, fmt.Errorf("read journal: %w", err)
	}
	defer file.Close()
	return summarize(Records(file))
}

// reference tells two messages to one recipient apart.
func (r *Record) reference() string {
	if r.MessageID == "" && r.Provider != "" {
		return r.CRC32C
	}
	return r.MessageID
}

func summarize(records iter.Seq2[Record, error]) (Summary, error) {
	var sum Summary
	seeds := [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}
	seen := map[[2]uint64]struct{}{}
	var key bytes.Buffer
	for record, err := range records {
		if errors.Is(err, ErrTorn) {
			break
		}
		if err != nil {
			return sum, err
		}
		key.Reset()
		key.WriteString(record.reference())
		key.WriteByte(0)
		key.WriteString(record.To)
		sum.Received++
		seen[[2]uint64{maphash.Bytes(seeds[0], key.Bytes()), maphash.Bytes(seeds[1], key.Bytes())}] = struct{}{}
	}
	sum.Distinct = int64(len(seen))
	sum.Duplicates = sum.Received - sum.Distinct
	return sum, nil
}
