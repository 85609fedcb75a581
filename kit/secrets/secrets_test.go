package secrets_test

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
	"pgregory.net/rapid"

	optionsv1 "github.com/turumba/turumba/gen/turumba/options/v1"
	"github.com/turumba/turumba/kit/secrets"
)

// field is one field of a message type that a test makes up.
func field(number int32, name string, kind descriptorpb.FieldDescriptorProto_Type, options ...proto.Message) *descriptorpb.FieldDescriptorProto {
	f := &descriptorpb.FieldDescriptorProto{
		Name: proto.String(name), JsonName: proto.String(name), Number: proto.Int32(number), Type: kind.Enum(),
		Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum(), Options: &descriptorpb.FieldOptions{},
	}
	for _, o := range options {
		proto.Merge(f.Options, o)
	}
	return f
}

func secret() proto.Message {
	o := &descriptorpb.FieldOptions{}
	proto.SetExtension(o, optionsv1.E_Secret, true)
	return o
}

func destination(is bool) proto.Message {
	o := &descriptorpb.FieldOptions{}
	proto.SetExtension(o, optionsv1.E_Destination, is)
	return o
}

const (
	str     = descriptorpb.FieldDescriptorProto_TYPE_STRING
	integer = descriptorpb.FieldDescriptorProto_TYPE_INT32
)

// message is a type that a test makes up, and one that holds a list of it.
func message(t require.TestingT, fields ...*descriptorpb.FieldDescriptorProto) (one, list protoreflect.MessageDescriptor) {
	inner := field(1, "inner", descriptorpb.FieldDescriptorProto_TYPE_MESSAGE)
	inner.TypeName, inner.Label = proto.String(".x.One"), descriptorpb.FieldDescriptorProto_LABEL_REPEATED.Enum()
	fd, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{
		Name: proto.String("x.proto"), Package: proto.String("x"), Syntax: proto.String("proto3"),
		MessageType: []*descriptorpb.DescriptorProto{
			{Name: proto.String("One"), Field: fields},
			{Name: proto.String("List"), Field: []*descriptorpb.FieldDescriptorProto{inner}},
		},
	}, nil)
	require.NoError(t, err)
	return fd.Messages().Get(0), fd.Messages().Get(1)
}

func TestCheck(t *testing.T) {
	t.Parallel()
	repeated := field(2, "hosts", str, destination(true))
	repeated.Label = descriptorpb.FieldDescriptorProto_LABEL_REPEATED.Enum()
	for name, c := range map[string]struct {
		fields []*descriptorpb.FieldDescriptorProto
		want   string
	}{
		"all is said":                   {[]*descriptorpb.FieldDescriptorProto{field(1, "token", str, secret()), field(2, "host", str, destination(true)), field(3, "name", str, destination(false))}, ""},
		"no secret":                     {[]*descriptorpb.FieldDescriptorProto{field(1, "host", str)}, ""},
		"nothing is said":               {[]*descriptorpb.FieldDescriptorProto{field(1, "token", str, secret()), field(2, "host", str)}, "x.One.host stands beside a secret"},
		"said of a secret":              {[]*descriptorpb.FieldDescriptorProto{field(1, "token", str, secret(), destination(false))}, "x.One.token is a secret"},
		"said where there is no secret": {[]*descriptorpb.FieldDescriptorProto{field(1, "host", str, destination(true))}, "no secret beside it"},
		"a list":                        {[]*descriptorpb.FieldDescriptorProto{field(1, "token", str, secret()), repeated}, "must be one plain value"},
	} {
		one, _ := message(t, c.fields...)
		err := secrets.Check(one)
		if c.want == "" {
			require.NoError(t, err, name)
			continue
		}
		require.ErrorContains(t, err, c.want, name)
	}
}

// TestDestination: two messages have the same destination exactly when all their
// destinations are equal, whatever else they hold.
func TestDestination(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		md, _ := message(rt, field(1, "token", str, secret()), field(2, "host", str, destination(true)), field(3, "port", integer, destination(true)),
			field(4, "user", str, destination(true)), field(5, "name", str, destination(false)))
		texts := rapid.SampledFrom([]string{"", "a", "b", "ab", "\x00\x00\x00\x01", "a\x00\x00\x00\x04\x00\x00\x00\x01b"})
		draw := func(as string) (*dynamicpb.Message, []any) {
			m := dynamicpb.NewMessage(md)
			set := func(name protoreflect.Name, v any) { m.Set(md.Fields().ByName(name), protoreflect.ValueOf(v)) }
			host, user, port := texts.Draw(rt, as+" host"), texts.Draw(rt, as+" user"), rapid.Int32Range(0, 2).Draw(rt, as+" port")
			set("host", host)
			set("user", user)
			set("port", port)
			set("token", texts.Draw(rt, as+" token"))
			set("name", texts.Draw(rt, as+" name"))
			return m, []any{host, user, port}
		}
		one, there := draw("one")
		other, elsewhere := draw("other")
		require.Equal(rt, slices.Equal(there, elsewhere), string(secrets.Destination(one)) == string(secrets.Destination(other)))
	})
}

// TestLaterFieldsChangeNothing: what was sealed before the contract got a further
// destination opens after.
func TestLaterFieldsChangeNothing(t *testing.T) {
	t.Parallel()
	fields := []*descriptorpb.FieldDescriptorProto{field(1, "token", str, secret()), field(2, "host", str, destination(true))}
	before, _ := message(t, fields...)
	after, _ := message(t, append(fields, field(3, "port", integer, destination(true)))...)
	at := func(md protoreflect.MessageDescriptor) *dynamicpb.Message {
		m := dynamicpb.NewMessage(md)
		m.Set(md.Fields().ByName("host"), protoreflect.ValueOfString("a.example"))
		return m
	}
	require.Equal(t, secrets.Destination(at(before)), secrets.Destination(at(after)))
	other := at(after)
	other.Set(after.Fields().ByName("port"), protoreflect.ValueOfInt32(1))
	require.NotEqual(t, secrets.Destination(at(before)), secrets.Destination(other))
}

func TestAnySet(t *testing.T) {
	t.Parallel()
	one, list := message(t, field(1, "token", str, secret()), field(2, "host", str, destination(true)))
	require.True(t, secrets.Possible(list))
	require.False(t, secrets.Possible((&descriptorpb.FieldOptions{}).ProtoReflect().Descriptor()))
	m := dynamicpb.NewMessage(list)
	inner := dynamicpb.NewMessage(one)
	inner.Set(one.Fields().ByName("host"), protoreflect.ValueOfString("a.example"))
	m.Mutable(list.Fields().ByName("inner")).List().Append(protoreflect.ValueOfMessage(inner))
	require.False(t, secrets.AnySet(m))
	inner.Set(one.Fields().ByName("token"), protoreflect.ValueOfString("x"))
	require.True(t, secrets.AnySet(m))
}
