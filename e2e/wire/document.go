package wire

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/turumba/turumba/gen/openapi"
)

// documentURL names the OpenAPI document for the compiler; nothing is fetched.
const documentURL = "turumba:openapi.json"

// Document is the OpenAPI document as a judge of REST answers: the status must be
// documented, the body valid, and no field without documentation.
type Document struct {
	root     map[string]any
	compiler *jsonschema.Compiler

	mu      sync.Mutex // the compiler is not safe for use by several
	schemas map[string]*jsonschema.Schema
}

// ReadDocument reads the document that the gateway serves.
func ReadDocument() (*Document, error) {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(openapi.Document))
	if err != nil {
		return nil, fmt.Errorf("read the OpenAPI document: %w", err)
	}
	root, _ := doc.(map[string]any)
	closeObjects(root["components"])
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	c.AssertFormat()
	if err := c.AddResource(documentURL, doc); err != nil {
		return nil, fmt.Errorf("read the OpenAPI document: %w", err)
	}
	return &Document{root: root, compiler: c, schemas: map[string]*jsonschema.Schema{}}, nil
}

// closeObjects lets no schema below node have fields that it does not name. The
// document itself leaves answers open, since fields may be added to them.
func closeObjects(node any) {
	switch node := node.(type) {
	case map[string]any:
		if _, ok := node["properties"].(map[string]any); ok && node["type"] == "object" && node["additionalProperties"] == nil {
			node["additionalProperties"] = false
		}
		for _, v := range node {
			closeObjects(v)
		}
	case []any:
		for _, v := range node {
			closeObjects(v)
		}
	}
}

// Check tells in which way an answer to the RPC over REST is not as documented.
func (d *Document) Check(md protoreflect.MethodDescriptor, status int, contentType string, body []byte) error {
	verb, path := Route(md)
	pointer := []string{"paths", path, strings.ToLower(verb), "responses", strconv.Itoa(status)}
	response, ok := d.at(pointer)
	if !ok {
		return fmt.Errorf("%s %s: status %d is not documented", verb, path, status)
	}
	if ref, ok := response["$ref"].(string); ok {
		pointer = strings.Split(strings.TrimPrefix(ref, "#/"), "/")
		response, _ = d.at(pointer)
	}
	content, _ := response["content"].(map[string]any)
	mediaType, _, _ := strings.Cut(contentType, ";")
	switch {
	case len(content) == 0 && len(body) == 0:
		return nil
	case content[mediaType] == nil:
		return fmt.Errorf("%s %s: %d with content %q of %d bytes is not documented", verb, path, status, mediaType, len(body))
	case mediaType == "text/csv":
		return nil
	}
	schema, err := d.schema(append(pointer, "content", mediaType, "schema"))
	if err != nil {
		return err
	}
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("%s %s: %w", verb, path, err)
	}
	if err := schema.Validate(value); err != nil {
		return fmt.Errorf("%s %s: %d is not as documented: %w", verb, path, status, err)
	}
	return nil
}

// at is the object at a pointer of the document.
func (d *Document) at(pointer []string) (object map[string]any, ok bool) {
	object = d.root
	for _, key := range pointer {
		if object, ok = object[key].(map[string]any); !ok {
			return nil, false
		}
	}
	return object, true
}

var escapePointer = strings.NewReplacer("~", "~0", "/", "~1", "{", "%7B", "}", "%7D")

func (d *Document) schema(pointer []string) (*jsonschema.Schema, error) {
	location := documentURL + "#"
	for _, key := range pointer {
		location += "/" + escapePointer.Replace(key)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if s, ok := d.schemas[location]; ok {
		return s, nil
	}
	s, err := d.compiler.Compile(location)
	if err != nil {
		return nil, fmt.Errorf("compile %s: %w", location, err)
	}
	d.schemas[location] = s
	return s, nil
}
