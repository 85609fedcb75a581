package rest

// What looks at every byte of a request or an answer looks at eight at once.

const (
	ones = 0x0101010101010101 // the same byte eight times, when multiplied by it
	tops = 0x80 * ones        // the highest bit of each byte
)

// eight are the first eight bytes of s as one number; the compiler makes one read of it.
func eight(s string) uint64 {
	_ = s[7]
	return uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 |
		uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
}

// below is not zero when one of the eight bytes of x is below n, which is at most 0x80:
// taking n away sets the highest bit of such a byte, and of others only where one
// lower down was below n. Bytes that have that bit already are not below n.
func below(x, n uint64) uint64 { return (x - n*ones) &^ x & tops }
