package query

import (
	"slices"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	optionsv1 "github.com/turumba/turumba/gen/turumba/options/v1"
)

// Kind is the type of a queryable field: how its values are read and compared.
type Kind int

// The kinds. KindAuto takes the kind from the contract.
const (
	KindAuto      Kind = iota
	KindText           // text
	KindUUID           // uuid
	KindBool           // boolean
	KindInt            // any integer
	KindFloat          // double precision
	KindTime           // timestamptz
	KindEnum           // text holding the short word of an enum value
	KindTextArray      // text[], matched by element
	KindJSONArray      // jsonb array of strings, matched by element
	KindJSON           // jsonb object, matched by key (any_key)
)

// expects says in an error what a value of the kind looks like.
func (k Kind) expects() string {
	switch k {
	case KindUUID:
		return "a UUID"
	case KindBool:
		return "true or false"
	case KindInt:
		return "an integer"
	case KindFloat:
		return "a number"
	case KindTime:
		return "an RFC 3339 time or a date YYYY-MM-DD"
	default:
		return "text"
	}
}

// sqlType is the type that parameters of the kind are cast to.
func (k Kind) sqlType() string {
	switch k {
	case KindUUID:
		return "uuid"
	case KindBool:
		return "boolean"
	case KindInt:
		return "bigint"
	case KindFloat:
		return "double precision"
	case KindTime:
		return "timestamptz"
	default:
		return "text"
	}
}

// operators lists what makes sense for the kind.
func (k Kind) operators() []optionsv1.Operator {
	null := []optionsv1.Operator{optionsv1.Operator_OPERATOR_IS_NULL, optionsv1.Operator_OPERATOR_IS_NOT_NULL}
	equal := append([]optionsv1.Operator{
		optionsv1.Operator_OPERATOR_EQ, optionsv1.Operator_OPERATOR_NE, optionsv1.Operator_OPERATOR_IN,
	}, null...)
	order := append([]optionsv1.Operator{
		optionsv1.Operator_OPERATOR_LT, optionsv1.Operator_OPERATOR_LE, optionsv1.Operator_OPERATOR_GT,
		optionsv1.Operator_OPERATOR_GE, optionsv1.Operator_OPERATOR_RANGE,
	}, equal...)
	part := []optionsv1.Operator{
		optionsv1.Operator_OPERATOR_CONTAINS, optionsv1.Operator_OPERATOR_ICONTAINS, optionsv1.Operator_OPERATOR_LIKE,
		optionsv1.Operator_OPERATOR_ILIKE, optionsv1.Operator_OPERATOR_STARTSWITH, optionsv1.Operator_OPERATOR_ENDSWITH,
	}
	switch k {
	case KindText:
		return append(order, part...)
	case KindInt, KindFloat, KindTime:
		return order
	case KindJSON:
		return append(equal, part...)
	default:
		return equal
	}
}

// kindOf derives the kind of a field from its type and validation rules;
// KindAuto means that none fits.
func kindOf(fd protoreflect.FieldDescriptor) Kind {
	switch {
	case fd.IsMap():
		return KindJSON
	case fd.IsList() && fd.Kind() == protoreflect.StringKind:
		return KindTextArray
	case fd.IsList():
		return KindAuto
	}
	switch fd.Kind() {
	case protoreflect.StringKind:
		if isUUID(fd) {
			return KindUUID
		}
		return KindText
	case protoreflect.BoolKind:
		return KindBool
	case protoreflect.EnumKind:
		return KindEnum
	case protoreflect.FloatKind, protoreflect.DoubleKind:
		return KindFloat
	case protoreflect.MessageKind:
		return kindOfMessage(fd.Message().FullName())
	case protoreflect.BytesKind, protoreflect.GroupKind:
		return KindAuto
	default:
		return KindInt
	}
}

func kindOfMessage(name protoreflect.FullName) Kind {
	switch name {
	case "google.protobuf.Timestamp":
		return KindTime
	case "google.protobuf.Struct":
		return KindJSON
	case "google.protobuf.StringValue":
		return KindText
	case "google.protobuf.BoolValue":
		return KindBool
	case "google.protobuf.Int32Value", "google.protobuf.Int64Value":
		return KindInt
	case "google.protobuf.DoubleValue", "google.protobuf.FloatValue":
		return KindFloat
	}
	return KindAuto
}

// isUUID reports whether the field's validation rule makes it a UUID.
func isUUID(fd protoreflect.FieldDescriptor) bool {
	rules, ok := proto.GetExtension(fd.Options(), validate.E_Field).(*validate.FieldRules)
	return ok && rules.GetString().GetUuid()
}

// unsuitable returns the declared operators that make no sense for the kind.
func unsuitable(k Kind, declared []optionsv1.Operator) []optionsv1.Operator {
	var bad []optionsv1.Operator
	for _, op := range declared {
		if !slices.Contains(k.operators(), op) {
			bad = append(bad, op)
		}
	}
	return bad
}
