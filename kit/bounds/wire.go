package bounds

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// unscanned is how many bytes become so little in memory that nothing in them is
// counted before they are decoded; what is decoded is validated as ever.
const unscanned = 1 << 10

// ErrMalformed is a message that is no protobuf, or not as any encoder writes it.
var ErrMalformed = errors.New("the message is not valid protobuf")

// Wire counts what an encoded message would become, before it is decoded: the items of
// each list and map against max_items and max_pairs, free data against its limits, and
// all values against MaxValues. Its errors are ErrMalformed, or a *ExcessError.
func Wire(b []byte, md protoreflect.MessageDescriptor) (values int, err error) {
	if len(b) <= unscanned {
		return 0, nil
	}
	m, err := planOf(md)
	if err != nil {
		return 0, err
	}
	s := wireScan{}
	err = s.message(b, m)
	return s.values, err
}

// wireScan walks an encoded message.
type wireScan struct{ values int }

// count counts n values.
func (s *wireScan) count(n int) error {
	if s.values += n; s.values > MaxValues {
		return &ExcessError{Message: fmt.Sprintf("makes the request more than %d values", MaxValues)}
	}
	return nil
}

// within is an error of what is in a field, with the way to it.
func within(field string, err error) error {
	var v *ExcessError
	if err == nil || !errors.As(err, &v) {
		return err
	}
	if v.Field == "" {
		return &ExcessError{Field: field, Message: v.Message}
	}
	return &ExcessError{Field: field + "." + v.Field, Message: v.Message}
}

// onStack is how many fields a message has at most whose items are counted on the stack.
const onStack = 48

func (s *wireScan) message(b []byte, m *message) error {
	if m.free {
		return s.free(b, m)
	}
	if m.opaque {
		return s.flat(b)
	}
	var few [onStack]int32
	counts := few[:]
	if len(m.fields) > onStack {
		counts = make([]int32, len(m.fields))
	}
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return ErrMalformed
		}
		b = b[n:]
		n = protowire.ConsumeFieldValue(num, typ, b)
		if n < 0 {
			return ErrMalformed
		}
		if f := m.fields[num]; f != nil {
			if err := s.field(f, typ, b[:n], &counts[f.index]); err != nil {
				return within(f.name, err)
			}
		}
		b = b[n:]
	}
	return nil
}

// field counts one occurrence of a field, and looks into it.
func (s *wireScan) field(f *field, typ protowire.Type, b []byte, count *int32) error {
	items := 1
	var inside []byte
	if typ == protowire.BytesType {
		inside, _ = protowire.ConsumeBytes(b)
		if f.packed {
			items = packed(inside)
		}
	}
	*count = int32(min(int(*count)+items, MaxValues+1))
	switch {
	case f.many && int(*count) > f.most:
		return &ExcessError{Message: tooManyItems(f)}
	case !f.many && f.message != nil && *count > 1:
		return &ExcessError{Message: "is given twice"} // decoders merge, which adds up
	}
	if f.many || f.message != nil {
		if err := s.count(items); err != nil {
			return err
		}
	}
	if f.message == nil || typ != protowire.BytesType {
		return nil
	}
	if f.isMap {
		return s.entry(f, inside)
	}
	return s.message(inside, f.message)
}

func tooManyItems(f *field) string {
	if f.isMap {
		return fmt.Sprintf("has more than %d entries", f.most)
	}
	return fmt.Sprintf("has more than %d items", f.most)
}

// entry looks into the value of an entry of a map, which is its field 2.
func (s *wireScan) entry(f *field, b []byte) error {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeField(b)
		if n < 0 {
			return ErrMalformed
		}
		if num == 2 && typ == protowire.BytesType {
			_, _, tag := protowire.ConsumeTag(b)
			value, _ := protowire.ConsumeBytes(b[tag:])
			if err := s.message(value, f.message); err != nil {
				return err
			}
		}
		b = b[n:]
	}
	return nil
}

// flat counts the fields of a well-known type, such as the paths of a FieldMask.
func (s *wireScan) flat(b []byte) error {
	for n := 0; len(b) > 0; n++ {
		_, _, size := protowire.ConsumeField(b)
		if size < 0 {
			return ErrMalformed
		}
		if n >= maskPaths {
			return &ExcessError{Message: fmt.Sprintf("has more than %d items", maskPaths)}
		}
		if err := s.count(1); err != nil {
			return err
		}
		b = b[size:]
	}
	return nil
}

// packed is how many numbers are in a packed field: each varint ends with the only byte
// of it whose top bit is not set, and numbers of fixed size have at least four bytes.
func packed(b []byte) (n int) {
	for _, c := range b {
		if c < 0x80 {
			n++
		}
	}
	return n
}

// free holds encoded free data to its limits. Value, Struct and ListValue are told apart
// by where they stand: a Struct's field 1 are entries, a ListValue's are values, and a
// Value's fields 5 and 6 are one of each.
func (s *wireScan) free(b []byte, m *message) error {
	if len(b) > MaxFreeBytes {
		return &ExcessError{Message: tooLarge}
	}
	w := freeScan{}
	var wrong string
	switch m.name {
	case "google.protobuf.Struct":
		wrong = w.object(b, 1)
	case "google.protobuf.ListValue":
		wrong = w.list(b, 1)
	default:
		wrong = w.value(b, 1)
	}
	if wrong == malformed {
		return ErrMalformed
	}
	if wrong != "" {
		return &ExcessError{Message: wrong}
	}
	return s.count(w.values)
}

const malformed = "malformed"

// freeScan counts what encoded free data holds.
type freeScan struct{ keys, values int }

// each calls do with every field of b that is in one piece.
func each(b []byte, do func(num protowire.Number, inside []byte) string) string {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return malformed
		}
		b = b[n:]
		if n = protowire.ConsumeFieldValue(num, typ, b); n < 0 {
			return malformed
		}
		if typ == protowire.BytesType {
			inside, _ := protowire.ConsumeBytes(b)
			if wrong := do(num, inside); wrong != "" {
				return wrong
			}
		}
		b = b[n:]
	}
	return ""
}

func (s *freeScan) object(b []byte, depth int) string {
	if depth > MaxFreeDepth {
		return tooDeep
	}
	return each(b, func(num protowire.Number, entry []byte) string {
		if num != 1 {
			return ""
		}
		if s.keys++; s.keys > MaxFreeKeys {
			return tooManyKey
		}
		return each(entry, func(num protowire.Number, value []byte) string {
			if num != 2 {
				return ""
			}
			return s.value(value, depth)
		})
	})
}

func (s *freeScan) value(b []byte, depth int) string {
	if s.values++; s.values > MaxFreeValues {
		return tooMany
	}
	return each(b, func(num protowire.Number, inside []byte) string {
		switch num {
		case 5:
			return s.object(inside, depth+1)
		case 6:
			return s.list(inside, depth+1)
		}
		return ""
	})
}

func (s *freeScan) list(b []byte, depth int) string {
	if depth > MaxFreeDepth {
		return tooDeep
	}
	return each(b, func(num protowire.Number, inside []byte) string {
		if num != 1 {
			return ""
		}
		return s.value(inside, depth)
	})
}
