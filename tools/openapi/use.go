package main

import (
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

const schemaRef = "#/components/schemas/"

// finishUse looks at where each schema is used: what no operation refers to goes,
// and what only answers refer to says which of its fields are always there.
func finishUse(doc, schemas object) {
	asked, answered, tags := map[string]bool{}, map[string]bool{}, map[any]bool{}
	reach(child(child(doc, "components"), "responses"), schemas, answered)
	for _, item := range child(doc, "paths") {
		for _, op := range item.(object) {
			operation, ok := op.(object)
			if !ok {
				continue
			}
			reach(operation["parameters"], schemas, asked)
			reach(operation["requestBody"], schemas, asked)
			reach(operation["responses"], schemas, answered)
			for _, tag := range operation["tags"].([]any) {
				tags[tag] = true
			}
		}
	}
	for name, s := range schemas {
		switch schema, _ := s.(object); {
		case !asked[name] && !answered[name]:
			delete(schemas, name)
		case !asked[name]:
			requireAlways(name, schema)
		}
	}
	var used []any
	given, _ := doc["tags"].([]any)
	for _, t := range given {
		if tags[t.(object)["name"]] {
			used = append(used, t)
		}
	}
	doc["tags"] = used
}

// reach marks the schemas that node refers to, directly or through others.
func reach(node any, schemas object, marked map[string]bool) {
	switch node := node.(type) {
	case object:
		ref, _ := node["$ref"].(string)
		if name, ok := strings.CutPrefix(ref, schemaRef); ok && !marked[name] {
			marked[name] = true
			reach(schemas[name], schemas, marked)
		}
		for _, v := range node {
			reach(v, schemas, marked)
		}
	case []any:
		for _, v := range node {
			reach(v, schemas, marked)
		}
	}
}

// requireAlways requires the fields that the gateway always writes: those without
// presence.
func requireAlways(name string, schema object) {
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(name))
	md, ok := d.(protoreflect.MessageDescriptor)
	if err != nil || !ok {
		return
	}
	var required []any
	for i := range md.Fields().Len() {
		if fd := md.Fields().Get(i); !fd.HasPresence() {
			required = append(required, string(fd.Name()))
		}
	}
	if len(required) > 0 {
		schema["required"] = required
	}
}
