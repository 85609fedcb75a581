package main

import (
	"fmt"
	"strings"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	_ "github.com/turumba/turumba/gen/turumba/account/v1" // its descriptors
	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	_ "github.com/turumba/turumba/gen/turumba/messaging/v1" // its descriptors
	optionsv1 "github.com/turumba/turumba/gen/turumba/options/v1"
)

// packages of the contract that have routes.
var packages = [...]string{"turumba.account.v1", "turumba.messaging.v1"}

// finishOperation completes one operation from its RPC.
func finishOperation(op, schemas object) error {
	id, _ := op["operationId"].(string)
	md, err := methodOf(id)
	if err != nil {
		return err
	}
	summary, _ := op["summary"].(string)
	op["description"] = summary
	op["summary"] = words(string(md.Name()))
	finishParameters(md, op, schemas)
	finishBody(md, op)
	finishResponses(md, op)
	auth, _ := proto.GetExtension(md.Options(), optionsv1.E_Auth).(*optionsv1.Auth)
	if auth.GetPublic() {
		op["security"] = []any{}
	} else {
		op["security"] = []any{object{"bearer": []any{}}}
	}
	return nil
}

// words turns CreateGroupMessage into "Create group message".
func words(name string) string {
	s := strings.ToLower(strings.ReplaceAll(upperSnake(name), "_", " "))
	return strings.ToUpper(s[:1]) + s[1:]
}

func methodOf(operationID string) (protoreflect.MethodDescriptor, error) {
	service, method, _ := strings.Cut(operationID, "_")
	for _, p := range packages {
		d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(p + "." + service + "." + method))
		if md, ok := d.(protoreflect.MethodDescriptor); err == nil && ok {
			return md, nil
		}
	}
	return nil, fmt.Errorf("no RPC behind operation %q", operationID)
}

func isCreate(md protoreflect.MethodDescriptor) bool {
	name := string(md.Name())
	return strings.HasPrefix(name, "Create") || strings.HasPrefix(name, "BatchCreate") || strings.HasPrefix(name, "Duplicate") || name == "Register" || name == "ResendGroupMessage" || md.IsStreamingClient()
}

// isFile reports whether the answer is a stream of pieces of a file.
func isFile(md protoreflect.MethodDescriptor) bool {
	fields := md.Output().Fields()
	return md.IsStreamingServer() && fields.Len() == 1 && fields.Get(0).Kind() == protoreflect.BytesKind
}

func finishParameters(md protoreflect.MethodDescriptor, op, schemas object) {
	given, _ := op["parameters"].([]any)
	delete(op, "parameters")
	var params []any
	for _, p := range given {
		param, _ := p.(object)
		name, _ := param["name"].(string)
		fd := md.Input().Fields().ByJSONName(name)
		if fd == nil {
			fd = md.Input().Fields().ByName(protoreflect.Name(name))
		}
		if inBody(fd) {
			continue
		}
		params = append(params, param)
		if fd == nil {
			continue
		}
		param["name"] = string(fd.Name())
		if schema, ok := param["schema"].(object); ok {
			limit(fd, schema)
		}
	}
	if md.IsStreamingClient() {
		params = append(params, uploadParameters(md, schemas)...)
	}
	if isCreate(md) {
		params = append(params, object{
			"name": "Idempotency-Key", "in": "header", "required": false,
			"description": "Makes the create safe to repeat for 24 hours: the same key with the same body answers the same resource.",
			"schema":      object{"type": "string", "minLength": 1, "maxLength": 255},
		})
	}
	if len(params) > 0 {
		op["parameters"] = params
	}
}

// inBody reports whether a field is no parameter, which the gateway refuses in the query
// string: messages, as update_mask, which follows from the keys of the body.
func inBody(fd protoreflect.FieldDescriptor) bool {
	return fd != nil && fd.Message() != nil && !fd.IsMap()
}

// uploadParameters are the settings of an upload, which stand in the query string
// and so need no schema of their own.
func uploadParameters(md protoreflect.MethodDescriptor, schemas object) (params []any) {
	settings := md.Input().Fields().ByName("settings").Message()
	schema, _ := schemas[string(settings.FullName())].(object)
	for i := range settings.Fields().Len() {
		fd := settings.Fields().Get(i)
		prop := child(child(schema, "properties"), string(fd.Name()))
		description := prop["description"]
		delete(prop, "description")
		if fd.IsMap() {
			prop = object{"type": "array", "items": object{"type": "string", "pattern": ":[^:]*$"}}
		}
		params = append(params, object{"name": string(fd.Name()), "in": "query", "required": false, "schema": prop, "description": description})
	}
	return params
}

// uploadBody is the body of an upload: items on lines of their own, or the file alone, or
// a form that ends with it.
func uploadBody(md protoreflect.MethodDescriptor) object {
	if item := md.Input().Fields().ByName("item"); item != nil {
		return object{"required": true, "description": "One JSON object a line.", "content": object{
			"application/x-ndjson": object{"schema": object{"$ref": "#/components/schemas/" + string(item.Message().FullName())}},
		}}
	}
	file := object{"type": "string", "format": "binary"}
	return object{"required": true, "content": object{
		"text/csv": object{"schema": file},
		"multipart/form-data": object{"schema": object{
			"type": "object", "description": "The query parameters may be form fields before the file.",
			"required": []any{"file"}, "properties": object{"file": file},
		}},
	}}
}

// finishBody completes the inline schema of a request body.
func finishBody(md protoreflect.MethodDescriptor, op object) {
	if md.IsStreamingClient() {
		op["requestBody"] = uploadBody(md)
		return
	}
	content := child(child(child(op, "requestBody"), "content"), "application/json")
	schema, _ := content["schema"].(object)
	if schema == nil {
		delete(op, "requestBody")
		return
	}
	body := md.Input()
	rule, _ := proto.GetExtension(md.Options(), annotations.E_Http).(*annotations.HttpRule)
	if name := rule.GetBody(); name != "" && name != "*" {
		body = md.Input().Fields().ByName(protoreflect.Name(name)).Message()
	}
	finishProperties(body, schema)
	props, _ := schema["properties"].(object)
	if len(props) == 0 && schema["$ref"] == nil {
		delete(op, "requestBody")
	}
}

// statuses are the errors that an operation can answer with.
var statuses = [...]struct {
	code, text string
}{
	{"400", "The request cannot be read: JSON, filter, sort or query parameter."},
	{"401", "The token is missing, malformed, expired or not ours."},
	{"403", "The caller's role does not hold the permission."},
	{"404", "The resource does not exist in the caller's accounts."},
	{"409", "The state of the resource does not allow it, or it exists already."},
	{"413", "The body is too large."},
	{"415", "The body is not of a type that the route takes."},
	{"422", "Fields of the request break their rules; `fields` names them."},
	{"429", "Too many requests; see Retry-After."},
	{"500", "Something failed on our side."},
	{"503", "A dependency cannot be reached; try again."},
	{"504", "The time for the request ran out; try again."},
}

func finishResponses(md protoreflect.MethodDescriptor, op object) {
	responses := child(op, "responses")
	ok, _ := responses["200"].(object)
	code := "200"
	switch {
	case isCreate(md):
		code = "201"
	case md.Output().Fields().Len() == 0:
		code = "204"
		ok = object{"description": "Done; no body."}
	case isFile(md):
		ok = object{"description": "The file.", "content": object{"text/csv": object{"schema": object{"type": "string", "format": "binary"}}}}
	case md.IsStreamingServer():
		ok = object{"description": "One JSON object a line, until the stream ends.", "content": object{
			"application/x-ndjson": object{"schema": object{"$ref": "#/components/schemas/" + string(streamed(md))}},
		}}
	}
	fresh := object{code: ok}
	for _, s := range statuses {
		if s.code == "415" && op["requestBody"] == nil {
			continue
		}
		fresh[s.code] = object{"$ref": "#/components/responses/Error" + s.code}
	}
	op["responses"] = fresh
}

// streamed is the message of one line.
func streamed(md protoreflect.MethodDescriptor) protoreflect.FullName {
	rule, _ := proto.GetExtension(md.Options(), annotations.E_Http).(*annotations.HttpRule)
	if name := rule.GetResponseBody(); name != "" {
		return md.Output().Fields().ByName(protoreflect.Name(name)).Message().FullName()
	}
	return md.Output().FullName()
}

// addErrors adds the one error body and a response per status.
func addErrors(components object) {
	var reasons []any
	values := errorv1.Reason(0).Descriptor().Values()
	for i := 1; i < values.Len(); i++ {
		reasons = append(reasons, strings.TrimPrefix(string(values.Get(i).Name()), "REASON_"))
	}
	child(components, "schemas")["Error"] = object{
		"type": "object", "description": "The only shape of an error.", "required": []any{"detail", "code", "request_id"},
		"properties": object{
			"detail":     object{"type": "string", "description": "The error as a sentence."},
			"code":       object{"type": "string", "description": "The machine-readable reason.", "enum": reasons},
			"request_id": object{"type": "string", "description": "Finds the request in the logs."},
			"fields": object{"type": "array", "description": "The fields that are wrong; validation only.", "items": object{
				"type": "object", "required": []any{"field", "message"},
				"properties": object{"field": object{"type": "string"}, "message": object{"type": "string"}},
			}},
		},
	}
	responses := child(components, "responses")
	for _, s := range statuses {
		r := object{"description": s.text, "content": object{"application/json": object{"schema": object{"$ref": "#/components/schemas/Error"}}}}
		if s.code == "429" {
			r["headers"] = object{"Retry-After": object{"description": "Seconds to wait.", "schema": object{"type": "integer"}}}
		}
		responses["Error"+s.code] = r
	}
}
