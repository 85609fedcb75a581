package rest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/bounds"
)

// errTrailing is a body with something after its JSON value.
var errTrailing = errors.New("unexpected data after the JSON value")

// decodeMessage reads a body of REST JSON into m, unless it would become more than the
// contract has room for.
func decodeMessage(data []byte, m proto.Message) error {
	if _, err := bounds.JSON(data, m.ProtoReflect().Descriptor()); err != nil {
		return beyond(err)
	}
	return parseMessage(data, m)
}

// parseMessage is strict (an unknown key is an error), with enum words or full names.
func parseMessage(data []byte, m proto.Message) error {
	if needsWords(m.ProtoReflect().Descriptor()) {
		named, err := renameEnums(data, m.ProtoReflect().Descriptor())
		if errors.Is(err, io.EOF) { // the transcoder takes io.EOF for an empty body
			return errors.New("unexpected end of JSON input")
		}
		if err != nil {
			return err
		}
		data = named
	}
	if err := (protojson.UnmarshalOptions{}).Unmarshal(data, m); err != nil {
		return errors.New(plainJSONError(err))
	}
	return nil
}

// beyond tells of JSON that would become more than the contract has room for.
func beyond(err error) error {
	var v *bounds.ExcessError
	if errors.As(err, &v) {
		return apierr.New(errorv1.Reason_REASON_VALIDATION_FAILED, "the request is not valid").WithFields(apierr.Field{Field: v.Field, Message: v.Message})
	}
	return errors.New("the body is not valid JSON")
}

// plainJSONError drops the package name and the odd non-breaking space that
// protojson puts in front of its messages.
func plainJSONError(err error) string {
	s := strings.ReplaceAll(err.Error(), "\u00a0", " ")
	return strings.TrimPrefix(strings.TrimPrefix(s, "proto: "), "proto:")
}

var wordUse sync.Map // protoreflect.FullName → bool; filled once per message type, never changed

// needsWords tells whether an enum can appear anywhere below md.
func needsWords(md protoreflect.MessageDescriptor) bool {
	if v, ok := wordUse.Load(md.FullName()); ok {
		return v.(bool)
	}
	uses := usesEnum(md, map[protoreflect.FullName]bool{})
	wordUse.Store(md.FullName(), uses)
	return uses
}

func usesEnum(md protoreflect.MessageDescriptor, seen map[protoreflect.FullName]bool) bool {
	if seen[md.FullName()] || md.ParentFile().Package() == "google.protobuf" {
		return false
	}
	seen[md.FullName()] = true
	fields := md.Fields()
	for i := range fields.Len() {
		fd := fields.Get(i)
		if fd.IsMap() {
			fd = fd.MapValue()
		}
		if fd.Kind() == protoreflect.EnumKind {
			return true
		}
		if fd.Message() != nil && usesEnum(fd.Message(), seen) {
			return true
		}
	}
	return false
}

// renameEnums rewrites the enum words of a JSON object to the contract's names.
// It copies every other token as it is; Struct, Any and map keys are never
// touched.
func renameEnums(data []byte, md protoreflect.MessageDescriptor) ([]byte, error) {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	r := renamer{dec: dec, src: data}
	if err := r.message(md); err != nil {
		return nil, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errTrailing
	}
	return append(r.out, data[r.copied:]...), nil
}

// renamer walks the tokens of one JSON document beside its descriptor.
type renamer struct {
	dec    *json.Decoder
	src    []byte
	out    []byte
	copied int // bytes of src that are in out
}

// message walks a value that should be md; a value of another JSON type is
// left for protojson to refuse.
func (r *renamer) message(md protoreflect.MessageDescriptor) error {
	if md == nil || md.ParentFile().Package() == "google.protobuf" {
		return r.skip()
	}
	opened, err := r.open('{')
	if err != nil || !opened {
		return err
	}
	for r.dec.More() {
		key, err := r.dec.Token()
		if err != nil {
			return err
		}
		name, _ := key.(string)
		if err := r.field(fieldByJSON(md, name)); err != nil {
			return err
		}
	}
	_, err = r.dec.Token()
	return err
}

func fieldByJSON(md protoreflect.MessageDescriptor, name string) protoreflect.FieldDescriptor {
	if fd := md.Fields().ByName(protoreflect.Name(name)); fd != nil {
		return fd
	}
	return md.Fields().ByJSONName(name)
}

func (r *renamer) field(fd protoreflect.FieldDescriptor) error {
	switch {
	case fd == nil:
		return r.skip()
	case fd.IsMap():
		return r.each('{', func() error {
			if _, err := r.dec.Token(); err != nil {
				return err
			}
			return r.single(fd.MapValue())
		})
	case fd.IsList():
		return r.each('[', func() error { return r.single(fd) })
	}
	return r.single(fd)
}

func (r *renamer) each(open json.Delim, item func() error) error {
	opened, err := r.open(open)
	if err != nil || !opened {
		return err
	}
	for r.dec.More() {
		if err := item(); err != nil {
			return err
		}
	}
	_, err = r.dec.Token()
	return err
}

func (r *renamer) single(fd protoreflect.FieldDescriptor) error {
	switch fd.Kind() {
	case protoreflect.EnumKind:
		return r.enum(fd)
	case protoreflect.MessageKind, protoreflect.GroupKind:
		return r.message(fd.Message())
	default:
		return r.skip()
	}
}

func (r *renamer) enum(fd protoreflect.FieldDescriptor) error {
	var raw json.RawMessage
	if err := r.dec.Decode(&raw); err != nil {
		return err
	}
	var word string
	if raw[0] != '"' {
		return nil // a number or a wrong type: protojson's to judge
	}
	if err := json.Unmarshal(raw, &word); err != nil {
		return err
	}
	name, ok := wordsOf(fd.Enum()).byWord[word]
	if !ok {
		return fmt.Errorf("field %s: %q is not one of %s", fd.Name(), word, wordList(fd.Enum()))
	}
	end := int(r.dec.InputOffset())
	start := end - len(raw)
	r.out = append(r.out, r.src[r.copied:start]...)
	r.out = appendString(r.out, name)
	r.copied = end
	return nil
}

// open consumes the opening delimiter; a value of another kind is skipped and
// reported as not opened.
func (r *renamer) open(want json.Delim) (bool, error) {
	tok, err := r.dec.Token()
	if err != nil {
		return false, err
	}
	d, isDelim := tok.(json.Delim)
	if !isDelim {
		return false, nil
	}
	if d == want {
		return true, nil
	}
	return false, r.drain()
}

// drain consumes the rest of an array or object whose opening was read.
func (r *renamer) drain() error {
	for depth := 1; depth > 0; {
		tok, err := r.dec.Token()
		if err != nil {
			return err
		}
		switch tok {
		case json.Delim('{'), json.Delim('['):
			depth++
		case json.Delim('}'), json.Delim(']'):
			depth--
		}
	}
	return nil
}

func (r *renamer) skip() error {
	var raw json.RawMessage
	return r.dec.Decode(&raw)
}

func wordList(ed protoreflect.EnumDescriptor) string {
	w := wordsOf(ed)
	words := make([]string, 0, len(w.byNumber))
	for i := range ed.Values().Len() {
		if n := ed.Values().Get(i).Number(); n != 0 {
			words = append(words, w.byNumber[n])
		}
	}
	return strings.Join(words, ", ")
}
