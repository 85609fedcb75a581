package rest

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"github.com/grpc-ecosystem/grpc-gateway/v2/utilities"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
)

// queryParser fills request fields from the query string, strictly: a parameter
// that is not a field of the request, or that comes twice without being a list,
// is an error that names it.
type queryParser struct{}

var _ runtime.QueryParameterParser = queryParser{}

// Parse implements runtime.QueryParameterParser. filter holds the fields that
// path and body fill already.
func (queryParser) Parse(m proto.Message, values url.Values, filter *utilities.DoubleArray) error {
	for name, vs := range values {
		fd := m.ProtoReflect().Descriptor().Fields().ByName(protoreflect.Name(name))
		if fd == nil || fd.Message() != nil && !fd.IsMap() || filter.HasCommonPrefix([]string{name}) {
			return apierr.New(errorv1.Reason_REASON_UNKNOWN_PARAMETER, "unknown query parameter %q", name)
		}
		if err := setParameter(m.ProtoReflect(), fd, vs); err != nil {
			return apierr.New(errorv1.Reason_REASON_UNKNOWN_PARAMETER, "query parameter %s: %s", name, err)
		}
	}
	return nil
}

func setParameter(m protoreflect.Message, fd protoreflect.FieldDescriptor, vs []string) error {
	if fd.IsList() {
		list := m.Mutable(fd).List()
		for _, s := range vs {
			v, err := parseScalar(fd, s)
			if err != nil {
				return err
			}
			list.Append(v)
		}
		return nil
	}
	if fd.IsMap() {
		return setMap(m.Mutable(fd).Map(), fd, vs)
	}
	if len(vs) != 1 {
		return fmt.Errorf("given %d times, expected once", len(vs))
	}
	v, err := parseScalar(fd, vs[0])
	if err != nil {
		return err
	}
	m.Set(fd, v)
	return nil
}

// setMap fills a map of texts from "key:value"; the last colon counts.
func setMap(m protoreflect.Map, fd protoreflect.FieldDescriptor, vs []string) error {
	for _, s := range vs {
		colon := strings.LastIndexByte(s, ':')
		if colon < 0 {
			return fmt.Errorf("%q is not key:value", s)
		}
		key := protoreflect.ValueOfString(s[:colon]).MapKey()
		if m.Has(key) {
			return fmt.Errorf("names %q twice", s[:colon])
		}
		value, err := parseScalar(fd.MapValue(), s[colon+1:])
		if err != nil {
			return err
		}
		m.Set(key, value)
	}
	return nil
}

// parseScalar reads the kinds that query parameters have.
func parseScalar(fd protoreflect.FieldDescriptor, s string) (protoreflect.Value, error) {
	switch fd.Kind() {
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(s), nil
	case protoreflect.BoolKind:
		if s != "true" && s != "false" {
			return protoreflect.Value{}, fmt.Errorf("%q is not true or false", s)
		}
		return protoreflect.ValueOfBool(s == "true"), nil
	case protoreflect.Int32Kind:
		n, err := strconv.ParseInt(s, 10, 32)
		if err != nil {
			return protoreflect.Value{}, fmt.Errorf("%q is not a whole number", s)
		}
		return protoreflect.ValueOfInt32(int32(n)), nil
	case protoreflect.EnumKind:
		name, ok := wordsOf(fd.Enum()).byWord[s]
		if !ok {
			return protoreflect.Value{}, fmt.Errorf("%q is not one of %s", s, wordList(fd.Enum()))
		}
		return protoreflect.ValueOfEnum(fd.Enum().Values().ByName(protoreflect.Name(name)).Number()), nil
	default:
		return protoreflect.Value{}, fmt.Errorf("%s cannot come from the query string", strings.ToLower(fd.Kind().String()))
	}
}
