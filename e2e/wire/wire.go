// Package wire makes one call of the contract over gRPC or over REST and tells the
// answer in the same words for both.
package wire

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/turumba/turumba/gateway/rest"
	optionsv1 "github.com/turumba/turumba/gen/turumba/options/v1"
	"github.com/turumba/turumba/kit/apierr"
)

// Answer is what a call gave, in the same words for both wires.
type Answer struct {
	// HTTP is the REST status, 0 over gRPC.
	HTTP int
	// Code is the gRPC status name, empty over REST.
	Code string
	// Reason, Detail and Fields tell of an error.
	Reason, Detail string
	// Fields are the request fields that the error names.
	Fields []string
	// Body is the decoded answer in REST JSON.
	Body any
	// Raw is the error as sent, without the request id; the headers are in it.
	Raw string
	// ContentType and Sent are the REST body as it came: of a stream its first line.
	// Sent has the request id, so answers are compared without it.
	ContentType string
	Sent        []byte `json:"-"`
}

// The two ways into the mesh.
const (
	GRPC = "grpc"
	REST = "rest"
)

// All are the two wires.
func All() []string { return []string{GRPC, REST} }

// Call is one call of an RPC.
type Call struct {
	// Method is the RPC.
	Method protoreflect.MethodDescriptor
	// Token is the bearer token; empty sends none.
	Token string
	// Key is the idempotency key; empty sends none.
	Key string
	// Body is the request in REST JSON, path variables included.
	Body map[string]any
	// Raw, when set, is the REST body instead, and Query is added to the query
	// string as it is; gRPC knows neither.
	Raw, Query string
	// Mask replaces the update mask that gRPC derives from the body.
	Mask []string
	// Header is sent besides: HTTP headers, or metadata.
	Header map[string]string
}

// Target is where calls go: a gRPC connection as a client outside the mesh has
// it, and the gateway.
type Target struct {
	// Conns are the connections by proto package.
	Conns map[string]grpc.ClientConnInterface
	// HTTP and BaseURL reach the gateway.
	HTTP    *http.Client
	BaseURL string
}

// Do makes the call over the wire.
func (t *Target) Do(ctx context.Context, wire string, c Call) (Answer, error) {
	if wire == GRPC {
		return callGRPC(ctx, t.Conns[string(c.Method.ParentFile().Package())], c)
	}
	return callREST(ctx, t.HTTP, t.BaseURL, c)
}

// Methods are the RPCs of the product's contract, sorted by name.
func Methods() (out []protoreflect.MethodDescriptor) {
	protoregistry.GlobalFiles.RangeFiles(func(fd protoreflect.FileDescriptor) bool {
		if !strings.HasPrefix(string(fd.Package()), "turumba.") {
			return true
		}
		for i := range fd.Services().Len() {
			sd := fd.Services().Get(i)
			for j := range sd.Methods().Len() {
				out = append(out, sd.Methods().Get(j))
			}
		}
		return true
	})
	slices.SortFunc(out, func(a, b protoreflect.MethodDescriptor) int { return strings.Compare(Name(a), Name(b)) })
	return out
}

// Name is how files name an RPC: "turumba.account.v1.ContactService/GetContact".
func Name(md protoreflect.MethodDescriptor) string {
	return fmt.Sprintf("%s/%s", md.Parent().FullName(), md.Name())
}

// AuthOf is the access rule of an RPC.
func AuthOf(md protoreflect.MethodDescriptor) *optionsv1.Auth {
	rule, _ := proto.GetExtension(md.Options(), optionsv1.E_Auth).(*optionsv1.Auth)
	return rule
}

// Route is the verb and path of an RPC; empty for an internal one.
func Route(md protoreflect.MethodDescriptor) (verb, path string) { return verbOf(ruleOf(md)) }

// FindMethod finds an RPC by its name.
func FindMethod(rpc string) (protoreflect.MethodDescriptor, error) {
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(strings.ReplaceAll(rpc, "/", ".")))
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", rpc, err)
	}
	md, ok := d.(protoreflect.MethodDescriptor)
	if !ok {
		return nil, fmt.Errorf("%s is not an RPC", rpc)
	}
	return md, nil
}

func ruleOf(md protoreflect.MethodDescriptor) *annotations.HttpRule {
	rule, _ := proto.GetExtension(md.Options(), annotations.E_Http).(*annotations.HttpRule)
	return rule
}

// callGRPC makes the call over conn; a server stream answers with its first message.
func callGRPC(ctx context.Context, conn grpc.ClientConnInterface, c Call) (Answer, error) {
	in, err := requests(c)
	if err != nil {
		return Answer{}, fmt.Errorf("request: %w", err)
	}
	out, err := newMessage(c.Method.Output())
	if err != nil {
		return Answer{}, err
	}
	if c.Token != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+c.Token)
	}
	if c.Key != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "idempotency-key", c.Key)
	}
	var header []string
	for k, v := range c.Header {
		header = append(header, k, v)
	}
	ctx = metadata.AppendToOutgoingContext(ctx, header...)
	full := "/" + Name(c.Method)
	if c.Method.IsStreamingServer() || c.Method.IsStreamingClient() {
		err = firstOfStream(ctx, conn, full, c.Method.IsStreamingClient(), in, out)
	} else {
		err = conn.Invoke(ctx, full, in[0], out)
	}
	if err != nil {
		return grpcError(err), nil
	}
	if data, isFile := fileData(out); isFile {
		return Answer{Code: "OK", Body: map[string]any{"csv": data}}, nil
	}
	b, err := rest.Marshal(responseBody(c.Method, out))
	if err != nil {
		return Answer{}, err
	}
	a := Answer{Code: "OK"}
	return a, json.Unmarshal(b, &a.Body)
}

// requests are the messages of a call: one, or the settings and the file of an upload.
func requests(c Call) ([]proto.Message, error) {
	bodies := []map[string]any{c.Body}
	if c.Method.IsStreamingClient() {
		settings, parts := upload(c.Method, c.Body)
		bodies = append([]map[string]any{{"settings": settings}}, parts...)
	}
	var out []proto.Message
	for _, body := range bodies {
		in, err := newMessage(c.Method.Input())
		if err != nil {
			return nil, err
		}
		if body == nil {
			body = map[string]any{}
		}
		data, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		if err := fill(data, in, c); err != nil {
			return nil, err
		}
		out = append(out, in)
	}
	return out, nil
}

// upload splits the body of a call that streams: the settings, and the file or the
// items that stand beside them.
func upload(md protoreflect.MethodDescriptor, body map[string]any) (settings map[string]any, parts []map[string]any) {
	settings = maps.Clone(body)
	delete(settings, "file")
	delete(settings, "items")
	if md.Input().Fields().ByName("item") == nil {
		text, _ := body["file"].(string)
		return settings, []map[string]any{{"data": []byte(text)}}
	}
	items, _ := body["items"].([]any)
	for _, item := range items {
		parts = append(parts, map[string]any{"item": item})
	}
	return settings, parts
}

// streamBody is the body of an upload in REST: the file, or a line for each item.
func streamBody(parts []map[string]any) (contentType string, body []byte) {
	for _, part := range parts {
		if data, ok := part["data"].([]byte); ok {
			return "text/csv", data
		}
		if line, err := json.Marshal(part["item"]); err == nil {
			body = append(append(body, line...), '\n')
		}
	}
	return "application/x-ndjson", body
}

// Input is the message whose fields the body of a call has: the settings of an
// upload, else the request.
func Input(md protoreflect.MethodDescriptor) protoreflect.MessageDescriptor {
	if md.IsStreamingClient() {
		return md.Input().Fields().ByName("settings").Message()
	}
	return md.Input()
}

// fileData is the text of a message that is a piece of a file.
func fileData(m proto.Message) (text string, ok bool) {
	piece, ok := m.(interface{ GetData() []byte })
	if !ok {
		return "", false
	}
	return string(piece.GetData()), true
}

func firstOfStream(ctx context.Context, conn grpc.ClientConnInterface, method string, clientStreams bool, in []proto.Message, out proto.Message) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: clientStreams}, method)
	if err != nil {
		return err
	}
	for _, m := range in {
		if err := stream.SendMsg(m); err != nil && !errors.Is(err, io.EOF) { // io.EOF: RecvMsg says why
			return err
		}
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	return stream.RecvMsg(out)
}

// fill reads REST JSON into the request. Fields of a PATCH stand flat in the
// case, as in the REST body; over gRPC they belong in the body field with a mask.
func fill(data []byte, in proto.Message, c Call) error {
	rule := ruleOf(c.Method)
	bodyField := rule.GetBody()
	if bodyField == "" || bodyField == "*" {
		return rest.Unmarshal(data, in)
	}
	request := map[string]any{}
	inner := map[string]any{}
	for k, v := range c.Body {
		if strings.Contains(rule.GetPatch()+rule.GetPut()+rule.GetPost(), "{"+k+"}") {
			request[k] = v
		} else {
			inner[k] = v
		}
	}
	request[bodyField] = inner
	paths := make([]string, 0, len(inner))
	for k := range inner {
		paths = append(paths, camel(k))
	}
	if c.Mask != nil {
		paths = c.Mask
	}
	request["update_mask"] = strings.Join(paths, ",")
	data, err := json.Marshal(request)
	if err != nil {
		return err
	}
	return rest.Unmarshal(data, in)
}

// camel turns snake_case into lowerCamelCase, the JSON form of a field mask.
func camel(s string) string {
	parts := strings.Split(s, "_")
	for i := 1; i < len(parts); i++ {
		if parts[i] != "" {
			parts[i] = strings.ToUpper(parts[i][:1]) + parts[i][1:]
		}
	}
	return strings.Join(parts, "")
}

func newMessage(md protoreflect.MessageDescriptor) (proto.Message, error) {
	mt, err := protoregistry.GlobalTypes.FindMessageByName(md.FullName())
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", md.FullName(), err)
	}
	return mt.New().Interface(), nil
}

// responseBody is the part of a response that REST answers with.
func responseBody(md protoreflect.MethodDescriptor, out proto.Message) proto.Message {
	name := ruleOf(md).GetResponseBody()
	if name == "" {
		return out
	}
	return out.ProtoReflect().Get(md.Output().Fields().ByName(protoreflect.Name(name))).Message().Interface()
}

func grpcError(err error) Answer {
	e := apierr.From(err)
	a := Answer{Code: status.Code(err).String(), Reason: apierr.Name(e.Reason), Detail: e.Message, Raw: e.Error() + fmt.Sprint(e.Fields)}
	for _, f := range e.Fields {
		a.Fields = append(a.Fields, f.Field)
	}
	return a
}

var pathVar = regexp.MustCompile(`\{([a-z_]+)\}`)

func verbOf(rule *annotations.HttpRule) (verb, path string) {
	switch {
	case rule.GetGet() != "":
		return http.MethodGet, rule.GetGet()
	case rule.GetPost() != "":
		return http.MethodPost, rule.GetPost()
	case rule.GetPatch() != "":
		return http.MethodPatch, rule.GetPatch()
	case rule.GetDelete() != "":
		return http.MethodDelete, rule.GetDelete()
	}
	return "", ""
}

// Body is the field that REST takes from the body: "*" for all, empty for none.
func Body(md protoreflect.MethodDescriptor) (field string, ok bool) {
	field = ruleOf(md).GetBody()
	return field, field != ""
}
