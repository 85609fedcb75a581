package grpcserver

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"

	"buf.build/go/protovalidate"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/bounds"
	"github.com/turumba/turumba/kit/idempotency"
)

func (s *Server) validateUnary(ctx context.Context, c *call, req any) (any, error) {
	if err := s.validate(c.rule, req); err != nil {
		return nil, err
	}
	return c.next(ctx, req)
}

func (s *Server) validateStream(c *call, ss grpc.ServerStream) error {
	return c.nextStream(&validStream{ServerStream: ss, server: s, rule: c.rule})
}

// validStream validates every message that comes in.
type validStream struct {
	grpc.ServerStream
	server *Server
	rule   *rule
}

// RecvMsg implements grpc.ServerStream.
func (v *validStream) RecvMsg(m any) error {
	if err := v.ServerStream.RecvMsg(m); err != nil {
		return err
	}
	return v.server.validate(v.rule, m)
}

// validate holds a request to the field rules of the contract. A partial update
// is held to them only where its mask reaches.
func (s *Server) validate(r *rule, req any) error {
	m, ok := req.(proto.Message)
	if !ok {
		return apierr.Internal(fmt.Errorf("%T is not a message", req))
	}
	if r.id != nil && isUUID(m.ProtoReflect().Get(r.id).String()) {
		return nil // most calls; the validator takes five times as long to say so
	}
	var fields []apierr.Field
	if r.mask != nil {
		fields = unknownPaths(m, r)
	}
	for _, v := range bounds.FreeOf(m.ProtoReflect()) {
		fields = append(fields, apierr.Field{Field: inResource(v.Field, r), Message: v.Message})
	}
	err := s.validator.Validate(m)
	if err == nil && len(fields) == 0 {
		return nil
	}
	var invalid *protovalidate.ValidationError
	switch {
	case errors.As(err, &invalid):
		fields = append(fields, violations(invalid, m, r)...)
	case err != nil:
		return apierr.Internal(fmt.Errorf("validate: %w", err))
	}
	if len(fields) == 0 { // what is wrong is outside the mask
		return nil
	}
	return apierr.New(errorv1.Reason_REASON_VALIDATION_FAILED, "the request is not valid").WithFields(fields...)
}

// isUUID reports whether s is a UUID in its long form.
func isUUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i := range len(s) {
		switch c := s[i]; {
		case i == 8 || i == 13 || i == 18 || i == 23:
			if c != '-' {
				return false
			}
		case (c < '0' || c > '9') && (c < 'a' || c > 'f') && (c < 'A' || c > 'F'):
			return false
		}
	}
	return true
}

// violations names the fields that break a rule. Fields of an update are named
// as in the resource, since that is what REST callers send.
func violations(invalid *protovalidate.ValidationError, m proto.Message, r *rule) []apierr.Field {
	var out []apierr.Field
	for _, v := range invalid.Violations {
		path := protovalidate.FieldPathString(v.Proto.GetField())
		if r.resource != nil {
			inner, isResource := strings.CutPrefix(path, string(r.resource.Name())+".")
			if isResource {
				if !covered(maskOf(m, r), inner) {
					continue
				}
				path = inner
			}
		}
		out = append(out, apierr.Field{Field: path, Message: v.Proto.GetMessage()})
	}
	return out
}

// inResource is the path of a field as in the resource, where the request changes one.
func inResource(path string, r *rule) string {
	if r.resource == nil {
		return path
	}
	return strings.TrimPrefix(path, string(r.resource.Name())+".")
}

func maskOf(m proto.Message, r *rule) []string {
	mask, _ := m.ProtoReflect().Get(r.mask).Message().Interface().(*fieldmaskpb.FieldMask)
	return mask.GetPaths()
}

// covered reports whether the mask reaches the field at path.
func covered(mask []string, path string) bool {
	for _, p := range mask {
		if p == path || strings.HasPrefix(path, p+".") || strings.HasPrefix(path, p+"[") || strings.HasPrefix(p, path+".") {
			return true
		}
	}
	return false
}

// unknownPaths are the paths of the mask that the resource does not have, or
// the lack of any.
func unknownPaths(m proto.Message, r *rule) []apierr.Field {
	paths := maskOf(m, r)
	if len(paths) == 0 {
		return []apierr.Field{{Field: "update_mask", Message: "names no field to change"}}
	}
	var out []apierr.Field
	for _, p := range paths {
		if !hasPath(r.resource.Message(), p) {
			out = append(out, apierr.Field{Field: p, Message: "is not a field that can be changed"})
		}
	}
	return out
}

func hasPath(md protoreflect.MessageDescriptor, path string) bool {
	name, rest, more := strings.Cut(path, ".")
	fd := md.Fields().ByName(protoreflect.Name(name))
	switch {
	case fd == nil:
		return false
	case !more:
		return true
	case fd.IsMap() || (fd.Message() != nil && fd.Message().FullName() == "google.protobuf.Struct"):
		return true // a key of a map or of free data
	case fd.Message() == nil || fd.IsList():
		return false
	}
	return hasPath(fd.Message(), rest)
}

// maxKey is the most characters of an idempotency key.
const maxKey = 255

// idempotencyUnary reads the idempotency key of a call. The transaction of the
// handler stores the answer; a call that was answered before gets that answer.
func idempotencyUnary(ctx context.Context, c *call, req any) (any, error) {
	keys := c.md.Get("idempotency-key")
	if len(keys) == 0 {
		return c.next(ctx, req)
	}
	r, err := idempotencyRequest(keys, c.method, req)
	if err != nil {
		return nil, err
	}
	resp, err := c.next(idempotency.With(ctx, r), req)
	var replay interface{ ReplayResponse() *anypb.Any }
	if !errors.As(err, &replay) {
		return resp, err
	}
	stored, err := replay.ReplayResponse().UnmarshalNew()
	if err != nil {
		return nil, fmt.Errorf("read the stored response: %w", err)
	}
	if err := grpc.SetHeader(ctx, metadata.Pairs("idempotency-replayed", "true")); err != nil {
		return nil, fmt.Errorf("set a header: %w", err)
	}
	return stored, nil
}

func idempotencyRequest(keys []string, method string, req any) (*idempotency.Request, error) {
	if err := checkKey(keys); err != nil {
		return nil, err
	}
	m, ok := req.(proto.Message)
	if !ok {
		return nil, apierr.Internal(fmt.Errorf("%T is not a message", req))
	}
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("hash the request: %w", err)
	}
	sum := sha256.Sum256(b)
	return &idempotency.Request{Method: method, Key: keys[0], Hash: sum[:]}, nil
}

func checkKey(keys []string) error {
	if len(keys) == 1 && keys[0] != "" && len(keys[0]) <= maxKey && strings.IndexFunc(keys[0], func(c rune) bool { return c < '!' || c > '~' }) < 0 {
		return nil
	}
	return apierr.New(errorv1.Reason_REASON_INVALID_HEADER, "Idempotency-Key must be one value of 1 to 255 printable ASCII characters")
}

// idempotencyStream reads the idempotency key of a client's stream. The handler
// hashes what makes the request, and answers a call that was answered before.
func idempotencyStream(c *call, ss grpc.ServerStream) error {
	keys := c.md.Get("idempotency-key")
	if len(keys) == 0 || !c.clientStreams {
		return c.nextStream(ss)
	}
	if err := checkKey(keys); err != nil {
		return err
	}
	ctx := idempotency.With(ss.Context(), &idempotency.Request{Method: c.method, Key: keys[0]})
	return c.nextStream(&contextStream{ServerStream: ss, ctx: ctx})
}
