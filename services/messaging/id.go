package messaging

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"slices"
	"time"

	"github.com/google/uuid"
)

// IDsAt returns n UUIDv7 of the same millisecond t, in ascending order. first is
// how many came before them, so that a send's ids keep its order and rows land
// side by side in the index; 44 bits of each are random (RFC 9562 section 6.2,
// method 1).
func IDsAt(t time.Time, first, n int) []string {
	ids := make([]string, n)
	noise := make([]byte, 8*n)
	_, _ = rand.Read(noise) // never fails: crypto/rand ends the program instead
	ms := uint64(t.UnixMilli())
	for i := range ids {
		counter := uint64(first+i) & (1<<30 - 1)
		var id uuid.UUID
		binary.BigEndian.PutUint64(id[:8], ms<<16|7<<12|counter>>18)
		binary.BigEndian.PutUint64(id[8:], 1<<63|(counter&(1<<18-1))<<44|binary.BigEndian.Uint64(noise[8*i:])&(1<<44-1))
		ids[i] = id.String()
	}
	return ids
}

// AreInRow reports whether ids of one send, made by IDsAt, are in order and no other of
// the send lies between them.
func AreInRow(ids []string) bool {
	if !slices.IsSorted(ids) {
		return false
	}
	first, err1 := uuid.Parse(ids[0])
	last, err2 := uuid.Parse(ids[len(ids)-1])
	return errors.Join(err1, err2) == nil && [6]byte(first[:6]) == [6]byte(last[:6]) && counterIn(last)-counterIn(first) == uint64(len(ids)-1)
}

// counterIn is how many ids of the send came before.
func counterIn(id uuid.UUID) uint64 {
	return binary.BigEndian.Uint64(id[:8])&(1<<12-1)<<18 | binary.BigEndian.Uint64(id[8:])>>44&(1<<18-1)
}

// FirstIDAt comes before every UUIDv7 of the millisecond t.
func FirstIDAt(t time.Time) string {
	var id uuid.UUID
	binary.BigEndian.PutUint64(id[:8], uint64(t.UnixMilli())<<16)
	return id.String()
}
