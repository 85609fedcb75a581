package bounds

import (
	"fmt"
	"math"
	"sync"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/structpb"
)

// Limits of free data, a google.protobuf.Struct, wherever a request has some.
const (
	// MaxFreeDepth is how deep objects and lists may stand in each other, the outermost
	// counted.
	MaxFreeDepth = 32
	// MaxFreeKeys is how many keys all objects of it may have together.
	MaxFreeKeys = 200
	// MaxFreeValues is how many values it may have, items of lists among them.
	MaxFreeValues = 4096
	// MaxFreeBytes is how many bytes its protobuf encoding may take.
	MaxFreeBytes = 64 << 10
)

// ExcessError is what a request has beyond its limits.
type ExcessError struct {
	// Field is the path of the field, as in contact.metadata.
	Field string
	// Message says what is wrong, to be read after the field's name.
	Message string
}

// Error implements error.
func (v *ExcessError) Error() string { return v.Field + " " + v.Message }

// Messages of errors.
var (
	tooDeep    = fmt.Sprintf("is nested more than %d deep", MaxFreeDepth)
	tooManyKey = fmt.Sprintf("has more than %d keys", MaxFreeKeys)
	tooMany    = fmt.Sprintf("has more than %d values", MaxFreeValues)
	tooLarge   = fmt.Sprintf("is larger than %d KiB", MaxFreeBytes>>10)
)

const (
	noNumber = "has a number that a double cannot hold"
	noValue  = "has a value that is none"
)

// Free holds free data to its limits; it says what is wrong, or nothing.
func Free(s *structpb.Struct) string {
	var c freeCount
	if wrong := c.object(s, 1); wrong != "" {
		return wrong
	}
	if c.values > 32 && proto.Size(s) > MaxFreeBytes || c.bytes > MaxFreeBytes {
		return tooLarge
	}
	return ""
}

// freeCount counts what a walk through free data meets.
type freeCount struct{ keys, values, bytes int }

func (c *freeCount) object(s *structpb.Struct, depth int) string {
	if depth > MaxFreeDepth {
		return tooDeep
	}
	if c.keys += len(s.GetFields()); c.keys > MaxFreeKeys {
		return tooManyKey
	}
	for k, v := range s.GetFields() {
		c.bytes += len(k)
		if wrong := c.value(v, depth); wrong != "" {
			return wrong
		}
	}
	return ""
}

func (c *freeCount) value(v *structpb.Value, depth int) string {
	if c.values++; c.values > MaxFreeValues {
		return tooMany
	}
	switch v := v.GetKind().(type) {
	case *structpb.Value_NumberValue:
		if math.IsNaN(v.NumberValue) || math.IsInf(v.NumberValue, 0) {
			return noNumber
		}
	case *structpb.Value_StringValue:
		c.bytes += len(v.StringValue)
	case *structpb.Value_StructValue:
		return c.object(v.StructValue, depth+1)
	case *structpb.Value_ListValue:
		if depth+1 > MaxFreeDepth {
			return tooDeep
		}
		for _, item := range v.ListValue.GetValues() {
			if wrong := c.value(item, depth+1); wrong != "" {
				return wrong
			}
		}
	case nil:
		return noValue
	}
	return ""
}

// FreeOf holds all free data in a message to its limits, by type: no field is named.
func FreeOf(m protoreflect.Message) []ExcessError {
	if !hasFree(m.Descriptor()) {
		return nil
	}
	var out []ExcessError
	walkFree(m, "", &out)
	return out
}

func walkFree(m protoreflect.Message, path string, out *[]ExcessError) {
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		at := path + string(fd.Name())
		switch {
		case fd.IsMap():
			if value := fd.MapValue().Message(); value != nil && hasFree(value) {
				v.Map().Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
					checkFree(v.Message(), fmt.Sprintf("%s[%q]", at, k.String()), out)
					return true
				})
			}
		case fd.Message() == nil || !hasFree(fd.Message()):
		case fd.IsList():
			for i := range v.List().Len() {
				checkFree(v.List().Get(i).Message(), fmt.Sprintf("%s[%d]", at, i), out)
			}
		default:
			checkFree(v.Message(), at, out)
		}
		return true
	})
}

// checkFree holds a message at path that is free data, or contains some.
func checkFree(m protoreflect.Message, path string, out *[]ExcessError) {
	var wrong string
	switch free := m.Interface().(type) {
	case *structpb.Struct:
		wrong = Free(free)
	case *structpb.Value:
		wrong = Free(&structpb.Struct{Fields: map[string]*structpb.Value{"": free}})
	case *structpb.ListValue:
		wrong = Free(&structpb.Struct{Fields: map[string]*structpb.Value{"": structpb.NewListValue(free)}})
	default:
		walkFree(m, path+".", out)
		return
	}
	if wrong != "" {
		*out = append(*out, ExcessError{Field: path, Message: wrong})
	}
}

var freeTypes sync.Map // protoreflect.FullName → bool; filled once per type, never changed

// hasFree tells whether free data can be anywhere below a type of message.
func hasFree(md protoreflect.MessageDescriptor) bool {
	if v, ok := freeTypes.Load(md.FullName()); ok {
		return v.(bool)
	}
	found := findFree(md, map[protoreflect.FullName]bool{})
	freeTypes.Store(md.FullName(), found)
	return found
}

func findFree(md protoreflect.MessageDescriptor, seen map[protoreflect.FullName]bool) bool {
	switch md.FullName() {
	case "google.protobuf.Struct", "google.protobuf.Value", "google.protobuf.ListValue":
		return true
	}
	if seen[md.FullName()] {
		return false
	}
	seen[md.FullName()] = true
	for i := range md.Fields().Len() {
		fd := md.Fields().Get(i)
		if fd.IsMap() {
			fd = fd.MapValue()
		}
		if fd.Message() != nil && findFree(fd.Message(), seen) {
			return true
		}
	}
	return false
}
