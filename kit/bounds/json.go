package bounds

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"strconv"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// maxJSONDepth is how deep values may stand in each other where the contract has none.
const maxJSONDepth = 64

// maxDigits is the longest number that is looked at.
const maxDigits = 400

// errSyntax is text that the scan cannot follow.
var errSyntax = errors.New("the JSON cannot be followed")

// JSON counts what REST JSON would become, before it is decoded, as Wire does; free data
// is held to its limits, and its numbers to what a double can hold. Text that is no JSON
// is the decoder's to refuse. Its errors are a *ExcessError or ErrMalformed.
func JSON(data []byte, md protoreflect.MessageDescriptor) (values int, err error) {
	if len(data) <= unscanned && !hasFree(md) {
		return 0, nil
	}
	m, err := planOf(md)
	if err != nil {
		return 0, err
	}
	s := jsonScan{b: data}
	err = s.value(m, 1)
	if errors.Is(err, errSyntax) {
		if json.Valid(data) {
			return 0, ErrMalformed // the scan is wrong, and what it did not count may be anything
		}
		return s.values, nil
	}
	return s.values, err
}

// jsonScan walks the text of a message beside its plan. It allocates nothing, but for
// keys with escapes.
type jsonScan struct {
	wireScan
	b []byte
	i int
}

// next skips white space and is the byte after it; 0 at the end.
func (s *jsonScan) next() byte {
	for ; s.i < len(s.b); s.i++ {
		switch c := s.b[s.i]; c {
		case ' ', '\t', '\n', '\r':
		default:
			return c
		}
	}
	return 0
}

// value walks a value that should be of type m; nil is a type without anything to count.
func (s *jsonScan) value(m *message, depth int) error {
	switch {
	case m != nil && m.free:
		f := freeJSON{jsonScan: s, start: s.i}
		if err := f.value(0); err != nil {
			return err
		}
		return s.count(f.values)
	case m == nil || m.opaque || s.next() != '{':
		return s.skip(depth)
	}
	return s.object(func(key []byte) error {
		f := m.byName[string(key)]
		if f == nil {
			return s.skip(depth + 1)
		}
		return within(f.name, s.field(f, depth+1))
	})
}

func (s *jsonScan) field(f *field, depth int) error {
	n := 0
	item := func() error {
		if n++; n > f.most {
			return &ExcessError{Message: tooManyItems(f)}
		}
		if err := s.count(1); err != nil {
			return err
		}
		return s.value(f.message, depth+1)
	}
	switch c := s.next(); {
	case f.isMap && c == '{':
		return s.object(func([]byte) error { return item() })
	case f.many && !f.isMap && c == '[':
		return s.array(item)
	case f.many:
		return s.skip(depth)
	}
	return s.value(f.message, depth)
}

// object walks the entries of an object whose brace is next.
func (s *jsonScan) object(entry func(key []byte) error) error {
	s.i++
	if s.next() == '}' {
		s.i++
		return nil
	}
	for {
		if s.next() != '"' {
			return errSyntax
		}
		key, err := s.key()
		if err != nil {
			return err
		}
		if s.next() != ':' {
			return errSyntax
		}
		s.i++
		s.next()
		if err := entry(key); err != nil {
			return err
		}
		if done, err := s.after('}'); done || err != nil {
			return err
		}
	}
}

// array walks the items of a list whose bracket is next.
func (s *jsonScan) array(item func() error) error {
	s.i++
	if s.next() == ']' {
		s.i++
		return nil
	}
	for {
		s.next()
		if err := item(); err != nil {
			return err
		}
		if done, err := s.after(']'); done || err != nil {
			return err
		}
	}
}

// after reads what comes after an item: a comma, or the end.
func (s *jsonScan) after(end byte) (done bool, err error) {
	switch s.next() {
	case ',':
		s.i++
		return false, nil
	case end:
		s.i++
		return true, nil
	}
	return false, errSyntax
}

// text skips a string and is what stands between its quotes.
func (s *jsonScan) text() ([]byte, error) {
	start := s.i + 1
	for i := start; i < len(s.b); i++ {
		switch s.b[i] {
		case '"':
			s.i = i + 1
			return s.b[start:i], nil
		case '\\':
			i++
		}
	}
	return nil, errSyntax
}

func (s *jsonScan) key() ([]byte, error) {
	start := s.i
	raw, err := s.text()
	if err != nil || bytes.IndexByte(raw, '\\') < 0 {
		return raw, err
	}
	var plain string
	if json.Unmarshal(s.b[start:s.i], &plain) != nil {
		return nil, errSyntax
	}
	return []byte(plain), nil
}

// word skips a number or one of the names.
func (s *jsonScan) word() ([]byte, error) {
	start := s.i
	for ; s.i < len(s.b); s.i++ {
		c := s.b[s.i]
		if (c < '0' || c > '9') && (c < 'a' || c > 'z') && c != '-' && c != '+' && c != '.' && c != 'E' {
			break
		}
	}
	if s.i == start {
		return nil, errSyntax
	}
	return s.b[start:s.i], nil
}

// skip walks a value in which nothing is counted but how deep it is.
func (s *jsonScan) skip(depth int) error {
	if depth > maxJSONDepth {
		return &ExcessError{Message: fmt.Sprintf("is nested more than %d deep", maxJSONDepth)}
	}
	var err error
	switch s.next() {
	case '{':
		return s.object(func([]byte) error { return s.skip(depth + 1) })
	case '[':
		return s.array(func() error { return s.skip(depth + 1) })
	case '"':
		_, err = s.text()
	default:
		_, err = s.word()
	}
	return err
}

// freeJSON walks free data.
type freeJSON struct {
	*jsonScan
	start        int
	keys, values int
}

func (f *freeJSON) wrong(message string) error {
	return &ExcessError{Message: message}
}

// value walks a value with depth objects and lists around it.
func (f *freeJSON) value(depth int) error {
	c := f.next()
	if f.values++; f.values > MaxFreeValues+1 { // the outermost is none of its values
		return f.wrong(tooMany)
	}
	switch c {
	case '{', '[':
		if depth >= MaxFreeDepth {
			return f.wrong(tooDeep)
		}
		return f.nested(c, depth+1)
	case '"':
		if _, err := f.text(); err != nil {
			return err
		}
	default:
		word, err := f.word()
		if err != nil {
			return err
		}
		if (c == '-' || '0' <= c && c <= '9') && !holds(string(word)) {
			return f.wrong(noNumber)
		}
	}
	if f.i-f.start > 6*MaxFreeBytes {
		return f.wrong(tooLarge)
	}
	return nil
}

func (f *freeJSON) nested(open byte, depth int) error {
	if open == '[' {
		return f.array(func() error { return f.value(depth) })
	}
	return f.object(func([]byte) error {
		if f.keys++; f.keys > MaxFreeKeys {
			return f.wrong(tooManyKey)
		}
		return f.value(depth)
	})
}

// holds reports whether a double can hold a number as JSON writes it: whole numbers
// exactly, or as a double is written in short (1e23); others as near as doubles are;
// none by becoming infinite or zero.
func holds(number string) bool {
	if len(number) <= 15 {
		for i := range len(number) {
			if c := number[i]; c < '0' || c > '9' {
				return holdsAny(number)
			}
		}
		return true // a whole number below 10^15
	}
	return holdsAny(number)
}

func holdsAny(number string) bool {
	if len(number) > maxDigits {
		return false
	}
	f, err := strconv.ParseFloat(number, 64)
	if errors.Is(err, strconv.ErrRange) {
		return false
	}
	if err != nil {
		return true // no number, which is the decoder's to refuse
	}
	if f == 0 {
		return !nonZero(number)
	}
	given, ok := new(big.Rat).SetString(number)
	if !ok || !given.IsInt() || given.Cmp(new(big.Rat).SetFloat64(f)) == 0 {
		return true
	}
	short, ok := new(big.Rat).SetString(strconv.FormatFloat(f, 'e', -1, 64))
	return ok && given.Cmp(short) == 0
}

// nonZero reports whether the digits before the exponent are not all zero.
func nonZero(number string) bool {
	for i := range len(number) {
		switch c := number[i]; {
		case c == 'e' || c == 'E':
			return false
		case '1' <= c && c <= '9':
			return true
		}
	}
	return false
}

// FreeJSON holds free data that is kept as JSON to its limits; it says what is wrong, or
// nothing. It is for what was put together here, from pieces that were each within them.
func FreeJSON(raw []byte) string {
	if len(raw) == 0 {
		return ""
	}
	s := jsonScan{b: raw}
	f := freeJSON{jsonScan: &s}
	err := f.value(0)
	var v *ExcessError
	switch {
	case err == nil:
		return ""
	case errors.As(err, &v):
		return v.Message
	}
	return "is not JSON"
}

// TooDeep reports whether stored JSON is nested deeper than free data may be: clients of
// protobuf cannot read what is nested much deeper, nor anything in the same answer.
func TooDeep(raw []byte) bool {
	return len(raw) > 2*MaxFreeDepth && FreeJSON(raw) == tooDeep
}
