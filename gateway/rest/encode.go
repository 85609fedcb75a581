package rest

import (
	"bytes"
	"fmt"
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
// What REST answers with is written by generated code (answers_*_gen.go), which
// costs a twentieth of protojson; every other message, and one that cannot be
// written, by a plan made once per message type, which also finds what is wrong.
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
		return appendBytes(b, v.Bytes()), nil
	default:
		return e.append(b, v.Message())
	}
}

// appendWellKnown leaves google.protobuf messages to protojson, except the
// timestamp, which every list row has several of.
func appendWellKnown(b []byte, m protoreflect.Message) ([]byte, error) {
	msg := m.Interface()
	if ts, ok := msg.(*timestamppb.Timestamp); ok && ts.IsValid() {
		return appendTime(b, ts), nil
	}
	raw, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(msg)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", m.Descriptor().FullName(), err)
	}
	return append(b, raw...), nil
}

// buffers are what answers are written into: a list would outgrow its slice a dozen
// times, and be copied as often.
var buffers = sync.Pool{New: func() any { return new([]byte) }}

// maxBuffer is the most bytes of a buffer that is kept.
const maxBuffer = 1 << 20

// message is the common way in: any protobuf message as REST JSON.
func (e *encoder) message(m proto.Message) ([]byte, error) {
	buffer := buffers.Get().(*[]byte)
	b, known := appendAnswer((*buffer)[:0], m)
	written := known && utf8.Valid(b) // text that is none, or unwritable
	out := bytes.Clone(b)
	if cap(b) <= maxBuffer {
		*buffer = b
		buffers.Put(buffer)
	}
	if written {
		return out, nil
	}
	return e.append(nil, m.ProtoReflect())
}
