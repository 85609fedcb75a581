package pg

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
)

// Nullable are the elements of an array of which empty ones are NULL.
type Nullable []string

// RegisterTypes lets a session take ids as the strings that the product uses, and arrays
// of ids, text, json and jsonb as []string or Nullable at once. Without it each array of ids
// first fails to encode and is then sent as text, and each element of an array goes
// through reflection: a sixth of a group send. Open does it for every session of a DB.
func RegisterTypes(_ context.Context, conn *pgx.Conn) error {
	m := conn.TypeMap()
	m.RegisterType(&pgtype.Type{Name: "uuid", OID: pgtype.UUIDOID, Codec: uuidCodec{}})
	for _, array := range []struct {
		name         string
		oid, element uint32
		add          appendElement
	}{
		{"_uuid", pgtype.UUIDArrayOID, pgtype.UUIDOID, appendUUID},
		{"_text", pgtype.TextArrayOID, pgtype.TextOID, appendText},
		{"_name", pgtype.NameArrayOID, pgtype.NameOID, appendText},
		{"_json", pgtype.JSONArrayOID, pgtype.JSONOID, appendText},
		{"_jsonb", pgtype.JSONBArrayOID, pgtype.JSONBOID, appendJSONB},
	} {
		element, _ := m.TypeForOID(array.element)
		codec := arrayCodec{&pgtype.ArrayCodec{ElementType: element}, encodeStrings{array.element, array.add}}
		m.RegisterType(&pgtype.Type{Name: array.name, OID: array.oid, Codec: codec})
	}
	return nil
}

// uuidCodec is pgx's own for uuid, and takes strings.
type uuidCodec struct{ pgtype.UUIDCodec }

// PlanEncode implements pgtype.Codec.
func (c uuidCodec) PlanEncode(m *pgtype.Map, oid uint32, format int16, value any) pgtype.EncodePlan {
	if _, ok := value.(string); ok && format == pgtype.BinaryFormatCode {
		return encodeUUIDString{}
	}
	return c.UUIDCodec.PlanEncode(m, oid, format, value)
}

type encodeUUIDString struct{}

// Encode implements pgtype.EncodePlan.
func (encodeUUIDString) Encode(value any, buf []byte) ([]byte, error) {
	return appendUUID(buf, value.(string))
}

// appendElement appends an element in PostgreSQL's binary form, without its length.
type appendElement func(buf []byte, s string) ([]byte, error)

func appendUUID(buf []byte, s string) ([]byte, error) {
	id, err := uuid.Parse(s)
	if err != nil {
		return nil, fmt.Errorf("encode %q as uuid: %w", s, err)
	}
	return append(buf, id[:]...), nil
}

func appendText(buf []byte, s string) ([]byte, error) { return append(buf, s...), nil }

// appendJSONB puts the version of the form before the text.
func appendJSONB(buf []byte, s string) ([]byte, error) { return append(append(buf, 1), s...), nil }

// arrayCodec is pgx's own for an array, and takes []string and Nullable without looking at
// each element's type.
type arrayCodec struct {
	*pgtype.ArrayCodec
	strings encodeStrings
}

// PreferredFormat implements pgtype.Codec.
func (arrayCodec) PreferredFormat() int16 { return pgtype.BinaryFormatCode }

// PlanEncode implements pgtype.Codec.
func (c arrayCodec) PlanEncode(m *pgtype.Map, oid uint32, format int16, value any) pgtype.EncodePlan {
	switch value.(type) {
	case []string, Nullable:
		if format == pgtype.BinaryFormatCode {
			return c.strings
		}
	}
	return c.ArrayCodec.PlanEncode(m, oid, format, value)
}

// encodeStrings encodes an array of one dimension.
type encodeStrings struct {
	element uint32
	add     appendElement
}

// Encode implements pgtype.EncodePlan. A nil slice is NULL.
func (e encodeStrings) Encode(value any, buf []byte) ([]byte, error) {
	list, nullable := value.(Nullable)
	if !nullable {
		list = value.([]string)
	}
	if list == nil {
		return nil, nil
	}
	if len(list) == 0 {
		return e.head(buf, 0, false), nil
	}
	buf = e.head(slices.Grow(buf, e.size(list)), 1, nullable)
	buf = binary.BigEndian.AppendUint32(buf, uint32(len(list)))
	buf = binary.BigEndian.AppendUint32(buf, 1) // the first subscript
	for _, s := range list {
		if nullable && s == "" {
			buf = append(buf, 0xff, 0xff, 0xff, 0xff)
			continue
		}
		start := len(buf)
		filled, err := e.add(append(buf, 0, 0, 0, 0), s)
		if err != nil {
			return nil, err
		}
		binary.BigEndian.PutUint32(filled[start:], uint32(len(filled)-start-4))
		buf = filled
	}
	return buf, nil
}

// size is how many bytes the array takes at most.
func (e encodeStrings) size(list []string) int {
	n := 20 + 5*len(list) // the array's head, each element's length and version
	if e.element == pgtype.UUIDOID {
		return n + 16*len(list)
	}
	for _, s := range list {
		n += len(s)
	}
	return n
}

// head is how many dimensions an array has, whether it may hold NULL, and of what it is.
func (e encodeStrings) head(buf []byte, dimensions uint32, nulls bool) []byte {
	var flag uint32
	if nulls {
		flag = 1
	}
	buf = binary.BigEndian.AppendUint32(buf, dimensions)
	buf = binary.BigEndian.AppendUint32(buf, flag)
	return binary.BigEndian.AppendUint32(buf, e.element)
}
