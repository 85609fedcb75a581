// Package secrets reads the contract's options (secret) and (destination): which
// fields of a message are secrets, and where they go (ADR 0042).
package secrets

import (
	"encoding/binary"
	"fmt"
	"sync"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	optionsv1 "github.com/turumba/turumba/gen/turumba/options/v1"
)

// Is reports whether the field is a secret.
func Is(fd protoreflect.FieldDescriptor) bool {
	secret, _ := proto.GetExtension(fd.Options(), optionsv1.E_Secret).(bool)
	return secret
}

// IsDestination reports whether the field says who gets the secrets of its message,
// or how they are protected on the way.
func IsDestination(fd protoreflect.FieldDescriptor) bool {
	destination, _ := proto.GetExtension(fd.Options(), optionsv1.E_Destination).(bool)
	return destination
}

// Fields are the secrets of a message type, in the order of the contract.
func Fields(md protoreflect.MessageDescriptor) (out []protoreflect.FieldDescriptor) {
	for i := range md.Fields().Len() {
		if fd := md.Fields().Get(i); Is(fd) {
			out = append(out, fd)
		}
	}
	return out
}

// Check reports what the contract leaves unsaid about a message type with secrets:
// every other field states (destination), and a destination is one plain value, so
// that there is one way to write it down.
func Check(md protoreflect.MessageDescriptor) error {
	has := len(Fields(md)) > 0
	for i := range md.Fields().Len() {
		fd := md.Fields().Get(i)
		stated := proto.HasExtension(fd.Options(), optionsv1.E_Destination)
		switch {
		case Is(fd) && stated:
			return fmt.Errorf("%s is a secret and no destination: take (destination) away", fd.FullName())
		case Is(fd):
		case has && !stated:
			return fmt.Errorf("%s stands beside a secret: say (destination) = true if who changes it sends the secret elsewhere or less protected, else false", fd.FullName())
		case !has && stated:
			return fmt.Errorf("%s has no secret beside it: take (destination) away", fd.FullName())
		case IsDestination(fd) && (fd.IsList() || fd.IsMap() || fd.Message() != nil):
			return fmt.Errorf("%s is a destination and must be one plain value", fd.FullName())
		}
	}
	return nil
}

// Destination writes down where the secrets of m go: the name of its type, and the
// number and the value of every destination that is set, each with its length before
// it, so that two destinations are never written alike. A field without a value is
// left out: a field that the contract gets later changes nothing for what is stored.
// Spelling is the caller's affair: two spellings are two destinations here.
func Destination(m proto.Message) []byte {
	r := m.ProtoReflect()
	md := r.Descriptor()
	out := appendText(nil, string(md.Name()))
	for i := range md.Fields().Len() {
		fd := md.Fields().Get(i)
		if !IsDestination(fd) || r.Get(fd).Equal(fd.Default()) {
			continue
		}
		out = binary.BigEndian.AppendUint32(out, uint32(fd.Number()))
		out = appendText(out, r.Get(fd).String())
	}
	return out
}

// Changed are the names of the destinations whose values differ in two messages of a type.
func Changed(before, after proto.Message) (names []string) {
	a, b := before.ProtoReflect(), after.ProtoReflect()
	for i := range a.Descriptor().Fields().Len() {
		if fd := a.Descriptor().Fields().Get(i); IsDestination(fd) && !a.Get(fd).Equal(b.Get(fd)) {
			names = append(names, string(fd.Name()))
		}
	}
	return names
}

func appendText(out []byte, text string) []byte {
	out = binary.BigEndian.AppendUint32(out, uint32(len(text)))
	return append(out, text...)
}

// AnySet reports whether a secret is set in m or in a message inside it.
func AnySet(m proto.Message) bool { return anySet(m.ProtoReflect()) }

func anySet(m protoreflect.Message) (found bool) {
	if !Possible(m.Descriptor()) {
		return false
	}
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case Is(fd):
			found = true
		case fd.IsMap():
			v.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool {
				found = fd.MapValue().Message() != nil && anySet(v.Message())
				return !found
			})
		case fd.Message() == nil:
		case fd.IsList():
			for i := 0; i < v.List().Len() && !found; i++ {
				found = anySet(v.List().Get(i).Message())
			}
		default:
			found = anySet(v.Message())
		}
		return !found
	})
	return found
}

// possible remembers Possible by type.
var possible sync.Map

// Possible reports whether a message of this type, or one inside it, can hold a
// secret. What google.protobuf.Any and Struct carry is not looked at: the contract
// does not know it.
func Possible(md protoreflect.MessageDescriptor) bool {
	if known, ok := possible.Load(md.FullName()); ok {
		holds, _ := known.(bool)
		return holds
	}
	holds := reaches(md, map[protoreflect.FullName]bool{})
	possible.Store(md.FullName(), holds)
	return holds
}

func reaches(md protoreflect.MessageDescriptor, seen map[protoreflect.FullName]bool) bool {
	if seen[md.FullName()] {
		return false
	}
	seen[md.FullName()] = true
	for i := range md.Fields().Len() {
		fd := md.Fields().Get(i)
		if Is(fd) || (fd.Message() != nil && reaches(fd.Message(), seen)) {
			return true
		}
	}
	return false
}
