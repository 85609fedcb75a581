package rest

import (
	"math"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	messagingv1 "github.com/turumba/turumba/gen/turumba/messaging/v1"
)

// TestAnswersAgainstProtojson: what the generated code writes of any answer of the
// contract is byte for byte what the general encoder writes, and with enum words
// turned back into names it means exactly what protojson writes.
func TestAnswersAgainstProtojson(t *testing.T) {
	t.Parallel()
	types := answerTypes(t)
	require.Greater(t, len(types), 40)
	for _, mt := range types {
		t.Run(string(mt.Descriptor().Name()), func(t *testing.T) {
			t.Parallel()
			rapid.Check(t, func(t *rapid.T) {
				m := mt.New()
				drawMessage(t, m, 3)
				requireSame(t, m)
			})
		})
	}
}

func requireSame(t require.TestingT, m protoreflect.Message) {
	written, known := appendAnswer(nil, m.Interface())
	require.True(t, known)
	general, err := (&encoder{}).append(nil, m)
	require.NoError(t, err)
	named, err := renameEnums(written, m.Descriptor())
	require.NoError(t, err)
	theirs, err := protojson.MarshalOptions{UseProtoNames: true, EmitDefaultValues: true}.Marshal(m.Interface())
	require.NoError(t, err)
	require.JSONEq(t, string(theirs), string(named))
	if !hasFree(m) { // protojson, which the general encoder leaves free data to, puts spaces there
		require.Equal(t, string(general), string(written))
	}
	whole, err := Marshal(m.Interface())
	require.NoError(t, err)
	require.Equal(t, string(written), string(whole))
}

// answerTypes are the bodies of all routes' answers.
func answerTypes(t *testing.T) []protoreflect.MessageType {
	t.Helper()
	var out []protoreflect.MessageType
	seen := map[protoreflect.FullName]bool{}
	protoregistry.GlobalFiles.RangeFiles(func(fd protoreflect.FileDescriptor) bool {
		for i := range fd.Services().Len() {
			methods := fd.Services().Get(i).Methods()
			for j := range methods.Len() {
				md := answerOf(methods.Get(j))
				if md == nil || seen[md.FullName()] {
					continue
				}
				seen[md.FullName()] = true
				mt, err := protoregistry.GlobalTypes.FindMessageByName(md.FullName())
				require.NoError(t, err)
				out = append(out, mt)
			}
		}
		return true
	})
	return out
}

func answerOf(md protoreflect.MethodDescriptor) protoreflect.MessageDescriptor {
	if routeOf(md) == nil {
		return nil
	}
	rule := proto.GetExtension(md.Options(), annotations.E_Http).(*annotations.HttpRule)
	if fd := md.Output().Fields().ByName(protoreflect.Name(rule.GetResponseBody())); fd != nil {
		return fd.Message()
	}
	return md.Output()
}

// drawMessage sets some fields, to any value that can be written; below depth no more
// messages.
func drawMessage(t *rapid.T, m protoreflect.Message, depth int) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		fd := fields.Get(i)
		if (fd.Message() != nil && depth == 0) || !rapid.Bool().Draw(t, "set") {
			continue
		}
		switch {
		case fd.IsMap():
			entries := m.Mutable(fd).Map()
			for _, k := range rapid.SliceOfN(rapid.String(), 0, 3).Draw(t, "keys") {
				entries.Set(protoreflect.ValueOfString(k).MapKey(), drawValue(t, fd.MapValue(), entries.NewValue, depth))
			}
		case fd.IsList():
			list := m.Mutable(fd).List()
			for range rapid.IntRange(0, 3).Draw(t, "length") {
				list.Append(drawValue(t, fd, list.NewElement, depth))
			}
		default:
			m.Set(fd, drawValue(t, fd, func() protoreflect.Value { return m.NewField(fd) }, depth))
		}
	}
}

func drawValue(t *rapid.T, fd protoreflect.FieldDescriptor, empty func() protoreflect.Value, depth int) protoreflect.Value {
	switch fd.Kind() {
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(rapid.Bool().Draw(t, "bool"))
	case protoreflect.EnumKind: // numbers that the contract does not know, too
		return protoreflect.ValueOfEnum(protoreflect.EnumNumber(rapid.Int32Range(-1, int32(fd.Enum().Values().Len()+1)).Draw(t, "enum")))
	case protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(rapid.Int32().Draw(t, "int32"))
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(rapid.Uint32().Draw(t, "uint32"))
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(drawText(t))
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes(rapid.SliceOf(rapid.Byte()).Draw(t, "bytes"))
	case protoreflect.MessageKind:
		v := empty()
		switch m := v.Message().Interface().(type) {
		case *timestamppb.Timestamp:
			m.Seconds = rapid.Int64Range(-62135596800, 253402300799).Draw(t, "seconds")
			m.Nanos = rapid.SampledFrom([]int32{0, 1, 1000, 120000000, 7000000, 999999999}).Draw(t, "nanos")
		case *structpb.Struct:
			m.Fields = drawFree(t, depth)
		default:
			drawMessage(t, v.Message(), depth-1)
		}
		return v
	default:
		t.Fatalf("no value is drawn for %s, which is a %s", fd.FullName(), fd.Kind())
		return protoreflect.Value{}
	}
}

// drawText draws what has to be escaped often enough, and at any place of eight bytes.
func drawText(t *rapid.T) string {
	some := rapid.StringOf(rapid.RuneFrom([]rune("abcdefgh\"\\\n\r\t\x00\x1f \x7f/<>&äአ🌍\u2028")))
	return rapid.OneOf(some, rapid.String()).Draw(t, "text")
}

func drawFree(t *rapid.T, depth int) map[string]*structpb.Value {
	fields := map[string]*structpb.Value{}
	for _, k := range rapid.SliceOfN(rapid.String(), 0, 3).Draw(t, "keys") {
		fields[k] = drawFreeValue(t, depth-1)
	}
	return fields
}

func drawFreeValue(t *rapid.T, depth int) *structpb.Value {
	switch rapid.IntRange(0, 5).Draw(t, "kind") {
	case 0:
		return structpb.NewBoolValue(rapid.Bool().Draw(t, "bool"))
	case 1:
		return structpb.NewNumberValue(rapid.Float64().Draw(t, "number"))
	case 2:
		return structpb.NewStringValue(drawText(t))
	case 3:
		if depth > 0 {
			return structpb.NewStructValue(&structpb.Struct{Fields: drawFree(t, depth)})
		}
	case 4:
		if depth > 0 {
			return structpb.NewListValue(&structpb.ListValue{Values: []*structpb.Value{drawFreeValue(t, depth-1), drawFreeValue(t, depth-1)}})
		}
	}
	return structpb.NewNullValue()
}

// hasFree reports whether free data is somewhere in m.
func hasFree(m protoreflect.Message) (found bool) {
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		each := func(v protoreflect.Value) { found = found || hasFree(v.Message()) }
		switch {
		case fd.Message() == nil || (fd.IsMap() && fd.MapValue().Message() == nil):
		case fd.Message().FullName() == "google.protobuf.Struct":
			found = true
		case fd.IsMap():
			v.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool { each(v); return true })
		case fd.IsList():
			for i := range v.List().Len() {
				each(v.List().Get(i))
			}
		default:
			each(v)
		}
		return !found
	})
	return found
}

// TestWhatCannotBeWritten: the generated code finds out, and the general encoder says
// what it is.
func TestWhatCannotBeWritten(t *testing.T) {
	t.Parallel()
	free := func(v *structpb.Value) *messagingv1.Message {
		return &messagingv1.Message{Metadata: &structpb.Struct{Fields: map[string]*structpb.Value{"a": v}}}
	}
	for name, m := range map[string]*messagingv1.Message{
		"text":             {MessageBody: "long enough for eight \xff at once"},
		"half a character": {MessageBody: "\xc3", Subject: "\xa4"},
		"time":             {CreatedAt: &timestamppb.Timestamp{Seconds: math.MaxInt64}},
		"NaN":              free(structpb.NewNumberValue(math.NaN())),
		"infinite":         free(structpb.NewNumberValue(math.Inf(-1))),
		"nothing":          free(&structpb.Value{}),
		"no value at all":  free(nil),
	} {
		b, known := appendAnswer(nil, m)
		require.True(t, known, name)
		require.False(t, utf8.Valid(b), name)
		_, err := Marshal(m)
		require.Error(t, err, name)
	}
	_, err := Marshal(&messagingv1.Message{MessageBody: "\xff"})
	require.ErrorContains(t, err, "message_body")
}

// TestNilIsEmpty: what is nil inside an answer is written as protojson does.
func TestNilIsEmpty(t *testing.T) {
	t.Parallel()
	requireSame(t, (&messagingv1.ListMessagesResponse{Data: []*messagingv1.Message{nil, {}}}).ProtoReflect())
	requireSame(t, (&messagingv1.Channel{ChannelType: 99}).ProtoReflect())
	requireSame(t, (*messagingv1.Message)(nil).ProtoReflect())
}
