package rest

import (
	"encoding/base64"
	"maps"
	"math"
	"slices"
	"strconv"

	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// unwritable stands for a value that has no JSON. It is no UTF-8, and so is all that
// has it: the functions below need no error, since encoder.message looks at the whole.
const unwritable = 0xff

// comma goes before a field that may be the first of its object.
func comma(b []byte) []byte {
	if b[len(b)-1] == '{' {
		return b
	}
	return append(b, ',')
}

// appendList writes a list, each value of it by the same function.
func appendList[T any](b []byte, list []T, each func([]byte, T) []byte) []byte {
	b = append(b, '[')
	for i, v := range list {
		if i > 0 {
			b = append(b, ',')
		}
		b = each(b, v)
	}
	return append(b, ']')
}

// appendMap writes a map with its keys sorted, so that equal messages give equal
// bytes.
func appendMap[T any](b []byte, m map[string]T, each func([]byte, T) []byte) []byte {
	if len(m) == 0 {
		return append(b, "{}"...) // as most are
	}
	b = append(b, '{')
	for _, k := range slices.Sorted(maps.Keys(m)) {
		b = append(appendString(comma(b), k), ':')
		b = each(b, m[k])
	}
	return append(b, '}')
}

// appendInt writes a number of 32 bits; those of 64 are strings in JSON.
func appendInt[T ~int32 | ~uint32](b []byte, n T) []byte { return strconv.AppendInt(b, int64(n), 10) }

func appendBytes(b, data []byte) []byte {
	b = append(b, '"')
	b = base64.StdEncoding.AppendEncode(b, data)
	return append(b, '"')
}

// appendStruct writes free data as it is.
func appendStruct(b []byte, s *structpb.Struct) []byte {
	return appendMap(b, s.GetFields(), appendFree)
}

// appendFree writes one value of free data.
func appendFree(b []byte, v *structpb.Value) []byte {
	switch v := v.GetKind().(type) {
	case *structpb.Value_NullValue:
		return append(b, "null"...)
	case *structpb.Value_BoolValue:
		return strconv.AppendBool(b, v.BoolValue)
	case *structpb.Value_NumberValue:
		if math.IsNaN(v.NumberValue) || math.IsInf(v.NumberValue, 0) {
			return append(b, unwritable)
		}
		return appendFloat(b, v.NumberValue, 64)
	case *structpb.Value_StringValue:
		return appendString(b, v.StringValue)
	case *structpb.Value_StructValue:
		return appendStruct(b, v.StructValue)
	case *structpb.Value_ListValue:
		return appendList(b, v.ListValue.GetValues(), appendFree)
	}
	return append(b, unwritable)
}

// appendTime writes RFC 3339 in UTC with 0, 3, 6 or 9 fraction digits, as the
// protobuf JSON mapping asks. time.Time.AppendFormat takes four times as long, and
// every row of a list has several times.
func appendTime(b []byte, ts *timestamppb.Timestamp) []byte {
	if !ts.IsValid() {
		return append(b, unwritable)
	}
	t := ts.AsTime()
	year, month, day := t.Date()
	hour, minute, second := t.Clock()
	b = appendDigits(append(b, '"'), year, 4)
	b = appendDigits(append(b, '-'), int(month), 2)
	b = appendDigits(append(b, '-'), day, 2)
	b = appendDigits(append(b, 'T'), hour, 2)
	b = appendDigits(append(b, ':'), minute, 2)
	b = appendDigits(append(b, ':'), second, 2)
	if n := t.Nanosecond(); n != 0 {
		digits := 9
		for digits > 3 && n%1000 == 0 {
			digits, n = digits-3, n/1000
		}
		b = appendDigits(append(b, '.'), n, digits)
	}
	return append(b, 'Z', '"')
}

// appendDigits writes n in so many digits.
func appendDigits(b []byte, n, digits int) []byte {
	for range digits {
		b = append(b, '0')
	}
	for i := len(b) - 1; n > 0; i, n = i-1, n/10 {
		b[i] = byte('0' + n%10)
	}
	return b
}

func appendFloat(b []byte, f float64, bits int) []byte {
	switch {
	case math.IsNaN(f):
		return append(b, `"NaN"`...)
	case math.IsInf(f, 1):
		return append(b, `"Infinity"`...)
	case math.IsInf(f, -1):
		return append(b, `"-Infinity"`...)
	}
	format := byte('f')
	if abs := math.Abs(f); abs != 0 && (abs < 1e-6 || abs >= 1e21) {
		format = 'e'
	}
	return strconv.AppendFloat(b, f, format, -1, bits)
}

const hexDigits = "0123456789abcdef"

// appendString writes s as a JSON string.
func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	start := 0
	for i := plain(s, 0); i < len(s); i = plain(s, i+1) {
		b = append(b, s[start:i]...)
		start = i + 1
		switch c := s[i]; c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, '\\', 'n')
		case '\r':
			b = append(b, '\\', 'r')
		case '\t':
			b = append(b, '\\', 't')
		default:
			b = append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		}
	}
	return append(append(b, s[start:]...), '"')
}

// plain is the place of the first byte from i on that does not stand in a JSON string
// as it is; the length when all do. It looks at eight bytes at once while it can:
// byte by byte this was a third of an answer's cost.
func plain(s string, i int) int {
	for ; i+8 <= len(s) && !anyEscaped(s[i:i+8]); i += 8 {
	}
	for ; i < len(s); i++ {
		if c := s[i]; c < ' ' || c == '"' || c == '\\' {
			return i
		}
	}
	return i
}

// anyEscaped reports whether one of eight bytes does not stand in a JSON string as it
// is.
func anyEscaped(s string) bool {
	x := eight(s)
	return below(x, ' ')|below(x^'"'*ones, 1)|below(x^'\\'*ones, 1) != 0
}
