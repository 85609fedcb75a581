package grpcserver

import (
	"errors"
	"fmt"
	"strings"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	optionsv1 "github.com/turumba/turumba/gen/turumba/options/v1"
	"github.com/turumba/turumba/kit/bounds"
)

// rule is what the contract says of one RPC.
type rule struct {
	auth *optionsv1.Auth
	// mask is the update_mask field of the request and resource the field it is
	// about; nil when the RPC is no partial update.
	mask, resource protoreflect.FieldDescriptor
	// reads says that the RPC changes nothing.
	reads bool
	// streams says that the RPC answers with a stream.
	streams bool
	// lists says that the RPC answers with a page of a list, long with a list of any kind.
	lists, long bool
	// id is the only field of the request, and a UUID is all that it may be; nil where
	// there is more.
	id protoreflect.FieldDescriptor
	// limit is the most bytes of a message of the request.
	limit int
}

// ruleOf reads the rule of an RPC from its descriptor. An RPC without an access
// rule or an idempotency level is an error: it must not be served.
func ruleOf(md protoreflect.MethodDescriptor) (*rule, error) {
	auth, _ := proto.GetExtension(md.Options(), optionsv1.E_Auth).(*optionsv1.Auth)
	if auth.GetRule() == nil {
		return nil, fmt.Errorf("%s has no (turumba.options.v1.auth) rule", md.FullName())
	}
	opts, _ := md.Options().(*descriptorpb.MethodOptions)
	if opts.GetIdempotencyLevel() == descriptorpb.MethodOptions_IDEMPOTENCY_UNKNOWN {
		return nil, fmt.Errorf("%s has no idempotency_level", md.FullName())
	}
	r := &rule{auth: auth, streams: md.IsStreamingServer(), reads: opts.GetIdempotencyLevel() == descriptorpb.MethodOptions_NO_SIDE_EFFECTS}
	limits, err := bounds.Of(md)
	if err != nil {
		return nil, err
	}
	if auth.GetPublic() && (md.IsStreamingClient() || md.IsStreamingServer()) {
		return nil, fmt.Errorf("%s is a public stream, which nothing would end", md.FullName())
	}
	if auth.GetSendsMail() && (md.IsStreamingClient() || md.IsStreamingServer()) {
		return nil, fmt.Errorf("%s is a stream that mails somebody, which no budget counts", md.FullName())
	}
	r.limit, r.id, r.lists = limits.Wire, onlyID(md.Input()), isPage(md.Output())
	r.long = hasList(md.Output()) && !md.IsStreamingClient() && !md.IsStreamingServer()
	fields := md.Input().Fields()
	if mask := fields.ByName("update_mask"); mask != nil {
		for i := range fields.Len() {
			if fd := fields.Get(i); fd != mask && fd.Message() != nil && !fd.IsMap() && !fd.IsList() {
				r.mask, r.resource = mask, fd
			}
		}
	}
	return r, nil
}

// isPage reports whether a message tells where a page stands in its list.
func isPage(md protoreflect.MessageDescriptor) bool {
	meta := md.Fields().ByName("meta")
	return meta != nil && meta.Message() != nil && meta.Message().FullName() == (&optionsv1.ListMeta{}).ProtoReflect().Descriptor().FullName()
}

// onlyID is the field of a message that has no other and no other rule than that it is
// a UUID; nil for any other message.
func onlyID(md protoreflect.MessageDescriptor) protoreflect.FieldDescriptor {
	if md.Fields().Len() != 1 || proto.HasExtension(md.Options(), validate.E_Message) {
		return nil
	}
	fd := md.Fields().Get(0)
	rules, _ := proto.GetExtension(fd.Options(), validate.E_Field).(*validate.FieldRules)
	uuid := validate.FieldRules_builder{String: validate.StringRules_builder{Uuid: proto.Bool(true)}.Build()}.Build()
	if fd.IsList() || fd.HasPresence() || !proto.Equal(rules, uuid) {
		return nil
	}
	return fd
}

// rulesOf reads the rules of every RPC of a service.
func rulesOf(desc *grpc.ServiceDesc) (map[string]*rule, error) {
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(desc.ServiceName))
	if err != nil {
		return nil, fmt.Errorf("service %s: %w", desc.ServiceName, err)
	}
	sd, ok := d.(protoreflect.ServiceDescriptor)
	if !ok {
		return nil, fmt.Errorf("%s is not a service", desc.ServiceName)
	}
	rules := map[string]*rule{}
	var problems []error
	for i := range sd.Methods().Len() {
		md := sd.Methods().Get(i)
		r, err := ruleOf(md)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		rules[fmt.Sprintf("/%s/%s", sd.FullName(), md.Name())] = r
	}
	return rules, errors.Join(problems...)
}

// shortName is the part of a full method that people read: Service/Method
// without the package.
func shortName(fullMethod string) string {
	return fullMethod[strings.LastIndexByte(fullMethod, '.')+1:]
}
