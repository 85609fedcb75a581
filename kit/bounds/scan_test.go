package bounds_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/structpb"

	accountv1 "github.com/turumba/turumba/gen/turumba/account/v1"
	"github.com/turumba/turumba/kit/bounds"
)

// nested is free data with so many objects in each other.
func nested(depth int) *structpb.Struct {
	s := &structpb.Struct{Fields: map[string]*structpb.Value{"x": structpb.NewNumberValue(1)}}
	for range depth - 1 {
		s = &structpb.Struct{Fields: map[string]*structpb.Value{"x": structpb.NewStructValue(s)}}
	}
	return s
}

func keys(n int) *structpb.Struct {
	s := &structpb.Struct{Fields: map[string]*structpb.Value{}}
	for i := range n {
		s.Fields[fmt.Sprint(i)] = structpb.NewBoolValue(true)
	}
	return s
}

func list(n int) *structpb.Struct {
	items := make([]*structpb.Value, n)
	for i := range items {
		items[i] = structpb.NewNullValue()
	}
	return &structpb.Struct{Fields: map[string]*structpb.Value{"x": structpb.NewListValue(&structpb.ListValue{Values: items})}}
}

func text(n int) *structpb.Struct {
	return &structpb.Struct{Fields: map[string]*structpb.Value{"x": structpb.NewStringValue(strings.Repeat("x", n))}}
}

// TestFree holds the same data to the same limits in all forms that it has: decoded, on
// the wire, in JSON, and as it is stored.
func TestFree(t *testing.T) {
	t.Parallel()
	pad := strings.Repeat("x", 2000) // enough for the wire to be looked at
	for name, c := range map[string]struct {
		free  *structpb.Struct
		wrong string
	}{
		"nothing":          {nil, ""},
		"as deep as it is": {nested(bounds.MaxFreeDepth), ""},
		"deeper":           {nested(bounds.MaxFreeDepth + 1), "deep"},
		"very deep":        {nested(4000), "deep"},
		"200 keys":         {keys(bounds.MaxFreeKeys), ""},
		"201 keys":         {keys(bounds.MaxFreeKeys + 1), "keys"},
		"4095 nulls":       {list(bounds.MaxFreeValues - 1), ""},
		"4096 nulls":       {list(bounds.MaxFreeValues), "values"},
		"64 KiB":           {text(bounds.MaxFreeBytes + 1), "KiB"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := &accountv1.CreateContactRequest{Name: pad, Metadata: c.free}
			if c.wrong == "" {
				require.Empty(t, bounds.FreeOf(m.ProtoReflect()))
			} else {
				all := bounds.FreeOf(m.ProtoReflect())
				require.Len(t, all, 1)
				require.Equal(t, "metadata", all[0].Field)
				require.Contains(t, all[0].Message, c.wrong)
			}
			wire, err := proto.Marshal(m)
			require.NoError(t, err)
			isViolation(t, scanWire(wire, m.ProtoReflect().Descriptor()), "metadata", c.wrong)
			data, err := protojson.Marshal(m)
			require.NoError(t, err)
			if c.wrong != "KiB" { // text is longer in JSON: the decoded message tells
				isViolation(t, scanJSON(data, m.ProtoReflect().Descriptor()), "metadata", c.wrong)
			}
			update, err := proto.Marshal(&accountv1.UpdateContactRequest{Contact: &accountv1.ContactUpdate{Name: pad, Metadata: c.free}})
			require.NoError(t, err)
			isViolation(t, scanWire(update, (&accountv1.UpdateContactRequest{}).ProtoReflect().Descriptor()), "contact.metadata", c.wrong)
		})
	}
	for _, bad := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
		require.Contains(t, bounds.Free(&structpb.Struct{Fields: map[string]*structpb.Value{"x": structpb.NewNumberValue(bad)}}), "number")
	}
	require.NotEmpty(t, bounds.Free(&structpb.Struct{Fields: map[string]*structpb.Value{"x": {}}}))
}

// scanWire and scanJSON are what the scans say.
func scanWire(b []byte, md protoreflect.MessageDescriptor) error {
	_, err := bounds.Wire(b, md)
	return err
}

func scanJSON(b []byte, md protoreflect.MessageDescriptor) error {
	_, err := bounds.JSON(b, md)
	return err
}

func isViolation(t *testing.T, err error, field, wrong string) {
	t.Helper()
	if wrong == "" {
		require.NoError(t, err)
		return
	}
	var v *bounds.ExcessError
	require.ErrorAs(t, err, &v)
	require.Equal(t, field, v.Field)
	require.Contains(t, v.Message, wrong)
}

// TestNumbers: whole numbers are held exactly or refused, others as near as doubles are.
func TestNumbers(t *testing.T) {
	t.Parallel()
	for number, held := range map[string]bool{
		"0": true, "-0": true, "0.0": true, "0e9": true, "1": true, "-17": true, "0.1": true, "0.10000000000000001": true, "3.14159265358979323846": true,
		"999999999999999": true, "9007199254740992": true, "9007199254740993": false, "-9007199254740993": false, "12345678901234567890": false,
		"1e22": true, "1e23": true, "1E+23": true, "1.2345678901234567890e19": false, "1e308": true, "1e309": false, "-1e400": false, "1e-400": false, "5e-324": true,
		"1" + strings.Repeat("0", 500): false, "0." + strings.Repeat("0", 500) + "1": false,
	} {
		err := scanJSON([]byte(`{"metadata":{"x":[`+number+`]}}`), (&accountv1.CreateContactRequest{}).ProtoReflect().Descriptor())
		if held {
			require.NoError(t, err, number)
			continue
		}
		isViolation(t, err, "metadata", "double")
	}
}

// TestItems counts lists and maps before they are decoded.
func TestItems(t *testing.T) {
	t.Parallel()
	batch := &accountv1.BatchCreateContactsRequest{}
	for range 1000 {
		batch.Contacts = append(batch.Contacts, &accountv1.ContactInput{Name: "x"})
	}
	both := func(m proto.Message) (wire, text error) {
		b, err := proto.Marshal(m)
		require.NoError(t, err)
		j, err := protojson.Marshal(m)
		require.NoError(t, err)
		return scanWire(b, m.ProtoReflect().Descriptor()), scanJSON(j, m.ProtoReflect().Descriptor())
	}
	wire, text := both(batch)
	require.NoError(t, errors.Join(wire, text))
	batch.Contacts = append(batch.Contacts, &accountv1.ContactInput{})
	wire, text = both(batch)
	isViolation(t, wire, "contacts", "more than 1000 items")
	isViolation(t, text, "contacts", "more than 1000 items")

	one := &accountv1.ContactInput{Identifiers: map[string]string{}}
	for i := range 200 {
		one.Identifiers[fmt.Sprint(i)] = "an id"
	}
	wire, text = both(&accountv1.BatchCreateContactsRequest{Contacts: []*accountv1.ContactInput{one}})
	isViolation(t, wire, "contacts.identifiers", "more than 3 entries")
	isViolation(t, text, "contacts.identifiers", "more than 3 entries")

	mask := &accountv1.UpdateContactRequest{UpdateMask: &fieldmaskpb.FieldMask{Paths: strings.Split(strings.Repeat("name,", 300), ",")}}
	b, err := proto.Marshal(mask)
	require.NoError(t, err)
	isViolation(t, scanWire(b, mask.ProtoReflect().Descriptor()), "update_mask", "items")

	// Decoders merge a message that comes twice, so its lists would add up.
	b, err = proto.Marshal(&accountv1.UpdateContactRequest{Contact: &accountv1.ContactUpdate{Name: strings.Repeat("x", 1000)}})
	require.NoError(t, err)
	isViolation(t, scanWire(append(b, b...), mask.ProtoReflect().Descriptor()), "contact", "twice")

	empties := bytes.Repeat([]byte{0x12, 0x00}, 4<<20)
	isViolation(t, scanWire(empties, batch.ProtoReflect().Descriptor()), "contacts", "items")
}

// FuzzWire: whatever the bytes are, what passes the scan decodes within the limits.
func FuzzWire(f *testing.F) {
	seed, _ := proto.Marshal(&accountv1.BatchCreateContactsRequest{Contacts: []*accountv1.ContactInput{{Name: strings.Repeat("x", 1200), Tags: []string{"a"}, Metadata: nested(3)}}})
	f.Add(seed)
	f.Add(bytes.Repeat([]byte{0x12, 0x00}, 800))
	f.Fuzz(func(t *testing.T, b []byte) {
		m := &accountv1.BatchCreateContactsRequest{}
		if scanWire(b, m.ProtoReflect().Descriptor()) != nil || len(b) <= 1<<10 || proto.Unmarshal(b, m) != nil {
			return
		}
		require.LessOrEqual(t, len(m.GetContacts()), 1000)
		for _, c := range m.GetContacts() {
			require.LessOrEqual(t, len(c.GetTags()), 100)
			if wrong := bounds.Free(c.GetMetadata()); wrong != "" {
				require.Regexp(t, "number|none|KiB", wrong, "what is left to the decoded message")
			}
		}
	})
}

// FuzzJSON: whatever the text is, what passes the scan decodes within the limits, and
// what is JSON is followed to its end.
func FuzzJSON(f *testing.F) {
	f.Add([]byte(`{"contacts":[{"name":"a\u0022","tags":["x"],"metadata":{"a":[1,2,{"b":null}],"c":-1.5e3}}]}`))
	f.Add([]byte(`{"contacts":[[[[{}]]]],"x":{"y":[true,false,null]}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		m := &accountv1.BatchCreateContactsRequest{}
		err := scanJSON(b, m.ProtoReflect().Descriptor())
		if errors.Is(err, bounds.ErrMalformed) {
			t.Fatalf("the scan cannot follow %q, which is JSON: %v", b, json.Valid(b))
		}
		if err != nil || protojson.Unmarshal(b, m) != nil {
			return
		}
		require.LessOrEqual(t, len(m.GetContacts()), 1000)
		for _, c := range m.GetContacts() {
			if wrong := bounds.Free(c.GetMetadata()); wrong != "" {
				require.Contains(t, wrong, "KiB")
			}
		}
	})
}
