package rest

import (
	"encoding/base64"
	"fmt"
	"math"
	"strconv"
	"sync"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// encoder writes protobuf messages as the REST JSON of decision C2: proto field
// names, every field that has no presence, enums as short lower-case words.
// It appends to a byte slice by a plan made once per message type; protojson
// spends 61 % of a list's CPU on the same work.
type encoder struct {
	plans sync.Map // protoreflect.FullName → *plan
}

// plan is what the encoder knows about one message type.
type plan struct {
	fields    []fieldPlan
	wellKnown bool
}

// fieldPlan is what the encoder knows about one field.
type fieldPlan struct {
	fd    protoreflect.FieldDescriptor
	kind  protoreflect.Kind
	key   string // `"name":`
	zero  string // what stands for a field that is not set; empty when nothing does
	words *enumWords
}

// zeroOf is what stands for a field that is not set: its default, unless it has
// presence.
func (f *fieldPlan) zeroOf() string {
	switch {
	case f.fd.HasPresence():
		return ""
	case f.fd.IsMap():
		return "{}"
	case f.fd.IsList():
		return "[]"
	case f.kind == protoreflect.EnumKind:
		return string(f.words.append(nil, 0))
	case f.kind == protoreflect.BoolKind:
		return "false"
	case f.kind == protoreflect.StringKind || f.kind == protoreflect.BytesKind:
		return `""`
	case f.kind == protoreflect.Int64Kind || f.kind == protoreflect.Sint64Kind || f.kind == protoreflect.Sfixed64Kind ||
		f.kind == protoreflect.Uint64Kind || f.kind == protoreflect.Fixed64Kind:
		return `"0"`
	}
	return "0"
}

func (e *encoder) planOf(md protoreflect.MessageDescriptor) *plan {
	if p, ok := e.plans.Load(md.FullName()); ok {
		return p.(*plan)
	}
	p := &plan{wellKnown: md.ParentFile().Package() == "google.protobuf"}
	fields := md.Fields()
	for i := range fields.Len() {
		fd := fields.Get(i)
		f := fieldPlan{fd: fd, kind: fd.Kind(), key: strconv.Quote(string(fd.Name())) + ":"}
		valueField := fd
		if fd.IsMap() {
			valueField = fd.MapValue()
		}
		if valueField.Kind() == protoreflect.EnumKind {
			f.words = wordsOf(valueField.Enum())
		}
		f.zero = f.zeroOf()
		p.fields = append(p.fields, f)
	}
	actual, _ := e.plans.LoadOrStore(md.FullName(), p)
	return actual.(*plan)
}

// append writes m to b.
func (e *encoder) append(b []byte, m protoreflect.Message) ([]byte, error) {
	p := e.planOf(m.Descriptor())
	if p.wellKnown {
		return appendWellKnown(b, m)
	}
	b = append(b, '{')
	first := true
	for i := range p.fields {
		f := &p.fields[i]
		set := m.Has(f.fd)
		if !set && f.zero == "" {
			continue
		}
		if !first {
			b = append(b, ',')
		}
		first = false
		b = append(b, f.key...)
		if !set {
			b = append(b, f.zero...)
			continue
		}
		var err error
		if b, err = e.appendField(b, f, m.Get(f.fd)); err != nil {
			return nil, err
		}
	}
	return append(b, '}'), nil
}

func (e *encoder) appendField(b []byte, f *fieldPlan, v protoreflect.Value) ([]byte, error) {
	switch {
	case f.fd.IsMap():
		return e.appendMap(b, f, v.Map())
	case f.fd.IsList():
		return e.appendList(b, f, v.List())
	}
	return e.appendValue(b, f.fd, f.words, v)
}

func (e *encoder) appendList(b []byte, f *fieldPlan, list protoreflect.List) ([]byte, error) {
	b = append(b, '[')
	var err error
	for i := range list.Len() {
		if i > 0 {
			b = append(b, ',')
		}
		if b, err = e.appendValue(b, f.fd, f.words, list.Get(i)); err != nil {
			return nil, err
		}
	}
	return append(b, ']'), nil
}

// appendMap writes a map with its keys sorted, so that equal messages give
// equal bytes.
func (e *encoder) appendMap(b []byte, f *fieldPlan, m protoreflect.Map) ([]byte, error) {
	keys := sortedKeys(m)
	b = append(b, '{')
	var err error
	for i, k := range keys {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendString(b, k.String())
		b = append(b, ':')
		if b, err = e.appendValue(b, f.fd.MapValue(), f.words, m.Get(k)); err != nil {
			return nil, err
		}
	}
	return append(b, '}'), nil
}

func (e *encoder) appendValue(b []byte, fd protoreflect.FieldDescriptor, words *enumWords, v protoreflect.Value) ([]byte, error) {
	switch fd.Kind() {
	case protoreflect.BoolKind:
		return strconv.AppendBool(b, v.Bool()), nil
	case protoreflect.EnumKind:
		return words.append(b, v.Enum()), nil
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind:
		return strconv.AppendInt(b, v.Int(), 10), nil
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		return strconv.AppendUint(b, v.Uint(), 10), nil
	case protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind:
		return append(strconv.AppendInt(append(b, '"'), v.Int(), 10), '"'), nil
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return append(strconv.AppendUint(append(b, '"'), v.Uint(), 10), '"'), nil
	case protoreflect.FloatKind:
		return appendFloat(b, v.Float(), 32), nil
	case protoreflect.DoubleKind:
		return appendFloat(b, v.Float(), 64), nil
	case protoreflect.StringKind:
		s := v.String()
		if !utf8.ValidString(s) {
			return nil, fmt.Errorf("encode %s: invalid UTF-8", fd.FullName())
		}
		return appendString(b, s), nil
	case protoreflect.BytesKind:
		b = append(b, '"')
		b = base64.StdEncoding.AppendEncode(b, v.Bytes())
		return append(b, '"'), nil
	default:
		return e.append(b, v.Message())
	}
}

// appendWellKnown leaves google.protobuf messages to protojson, except the
// timestamp, which every list row has several of.
func appendWellKnown(b []byte, m protoreflect.Message) ([]byte, error) {
	msg := m.Interface()
	if ts, ok := msg.(*timestamppb.Timestamp); ok && ts.IsValid() {
		return appendTimestamp(b, ts), nil
	}
	raw, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(msg)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", m.Descriptor().FullName(), err)
	}
	return append(b, raw...), nil
}

// appendTimestamp writes RFC 3339 in UTC with 0, 3, 6 or 9 fraction digits, as
// the protobuf JSON mapping asks.
func appendTimestamp(b []byte, ts *timestamppb.Timestamp) []byte {
	b = append(b, '"')
	b = ts.AsTime().AppendFormat(b, "2006-01-02T15:04:05")
	if n := ts.GetNanos(); n != 0 {
		digits, unit := 9, n
		for digits > 3 && unit%1000 == 0 {
			digits, unit = digits-3, unit/1000
		}
		b = append(b, '.')
		s := strconv.Itoa(int(unit))
		for range digits - len(s) {
			b = append(b, '0')
		}
		b = append(b, s...)
	}
	return append(b, 'Z', '"')
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

// appendString writes s as a JSON string; s is valid UTF-8.
func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	start := 0
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' {
			continue
		}
		b = append(b, s[start:i]...)
		start = i + 1
		switch c {
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

// message is the common way in: any protobuf message as REST JSON.
func (e *encoder) message(m proto.Message) ([]byte, error) {
	return e.append(make([]byte, 0, 512), m.ProtoReflect())
}
