package main

import (
	"slices"
	"strings"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	optionsv1 "github.com/turumba/turumba/gen/turumba/options/v1"
)

// finishSchema completes the schema of a message or an enum of the contract.
func finishSchema(name string, schema object) {
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(name))
	if err != nil {
		return
	}
	switch d := d.(type) {
	case protoreflect.EnumDescriptor:
		schema["type"] = "string"
		schema["enum"] = enumWords(d)
	case protoreflect.MessageDescriptor:
		finishProperties(d, schema)
	}
}

// zeroWord is the word of the zero value of every enum.
const zeroWord = "unspecified"

// enumWords are the words of REST, without the zero value's.
func enumWords(ed protoreflect.EnumDescriptor) []any {
	var words []any
	prefix := upperSnake(string(ed.Name())) + "_"
	for i := 1; i < ed.Values().Len(); i++ {
		words = append(words, strings.ToLower(strings.TrimPrefix(string(ed.Values().Get(i).Name()), prefix)))
	}
	return words
}

func upperSnake(name string) string {
	var b strings.Builder
	for i, r := range name {
		if i > 0 && r >= 'A' && r <= 'Z' {
			b.WriteByte('_')
		}
		b.WriteRune(r)
	}
	return strings.ToUpper(b.String())
}

// finishProperties renames the properties of a message to proto names and adds
// the limits of its fields.
func finishProperties(md protoreflect.MessageDescriptor, schema object) {
	old, _ := schema["properties"].(object)
	if old == nil {
		return
	}
	defer finishOneofs(md, schema)
	renamed := object{}
	var required []any
	for key, p := range old {
		fd := md.Fields().ByJSONName(key)
		if fd == nil {
			renamed[key] = p
			continue
		}
		prop, _ := p.(object)
		if fd.Kind() == protoreflect.Uint32Kind {
			prop["format"] = "int32" // so says every rule of the contract; the generator says int64
		}
		limit(fd, prop)
		renamed[string(fd.Name())] = prop
		if rules(fd).GetRequired() || rules(fd).GetString().GetMinLen() > 0 && !fd.HasPresence() {
			required = append(required, string(fd.Name()))
		}
	}
	schema["properties"] = renamed
	if len(required) > 0 && strings.HasSuffix(string(md.Name()), "Request") {
		slices.SortFunc(required, func(a, b any) int { return strings.Compare(a.(string), b.(string)) })
		schema["required"] = required
	}
}

// finishOneofs replaces what the generator says about the oneofs of a message: of a
// required one, exactly one field is there, and a client sees one type per field.
func finishOneofs(md protoreflect.MessageDescriptor, schema object) {
	delete(schema, "oneOf")
	delete(schema, "allOf")
	var all []any
	for i := range md.Oneofs().Len() {
		od := md.Oneofs().Get(i)
		rule, _ := proto.GetExtension(od.Options(), validate.E_Oneof).(*validate.OneofRules)
		if rule.GetRequired() {
			all = append(all, object{"oneOf": oneof(od, schema)})
		}
	}
	switch len(all) {
	case 0:
	case 1:
		schema["oneOf"] = all[0].(object)["oneOf"]
	default:
		schema["allOf"] = all
	}
	if props, _ := schema["properties"].(object); len(props) == 0 {
		delete(schema, "properties")
	}
}

// oneof moves the fields of a oneof out of the properties: one schema for each.
func oneof(od protoreflect.OneofDescriptor, schema object) (kinds []any) {
	props := child(schema, "properties")
	for i := range od.Fields().Len() {
		name := string(od.Fields().Get(i).Name())
		kinds = append(kinds, object{"type": "object", "title": name, "required": []any{name}, "properties": object{name: props[name]}})
		delete(props, name)
	}
	return kinds
}

func rules(fd protoreflect.FieldDescriptor) *validate.FieldRules {
	r, _ := proto.GetExtension(fd.Options(), validate.E_Field).(*validate.FieldRules)
	return r
}

// limit writes the validation of a field into its schema. A reference to
// another schema keeps its own limits.
func limit(fd protoreflect.FieldDescriptor, schema object) {
	if schema == nil {
		return
	}
	r := rules(fd)
	if r.GetIgnore() == validate.Ignore_IGNORE_IF_ZERO_VALUE {
		defer orEmpty(fd, schema)
	}
	if schema["$ref"] != nil {
		return
	}
	limitString(r.GetString(), schema)
	limitInt(r, schema)
	if rep := r.GetRepeated(); rep != nil {
		setIf(schema, "minItems", rep.MinItems)
		setIf(schema, "maxItems", rep.MaxItems)
		if rep.GetUnique() {
			schema["uniqueItems"] = true
		}
		if items, ok := schema["items"].(object); ok && items["$ref"] == nil {
			limitString(rep.GetItems().GetString(), items)
		}
	}
	if m := r.GetMap(); m != nil {
		setIf(schema, "maxProperties", m.MaxPairs)
	}
	if proto.GetExtension(fd.Options(), optionsv1.E_Secret) == true {
		schema["format"] = "password"
		if !strings.HasSuffix(string(fd.Parent().Name()), "Response") { // a response tells it
			schema["writeOnly"] = true
		}
	}
}

// orEmpty says that a field whose rules do not hold for its zero value may have it:
// no text, or the word of an enum's zero.
func orEmpty(fd protoreflect.FieldDescriptor, schema object) {
	var empty object
	limits := object{}
	switch {
	case fd.IsList() || fd.IsMap():
		return
	case fd.Kind() == protoreflect.EnumKind:
		empty = object{"type": "string", "const": zeroWord}
		move(schema, limits, "$ref")
	case fd.Kind() == protoreflect.StringKind:
		empty = object{"type": "string", "const": ""}
		move(schema, limits, "type", "format", "pattern", "minLength", "maxLength")
	default:
		return
	}
	schema["anyOf"] = []any{limits, empty}
}

// move moves what is there of the keys.
func move(from, to object, keys ...string) {
	for _, k := range keys {
		if v, ok := from[k]; ok {
			to[k] = v
			delete(from, k)
		}
	}
}

func limitString(s *validate.StringRules, schema object) {
	if s == nil {
		return
	}
	setIf(schema, "minLength", s.MinLen)
	setIf(schema, "maxLength", s.MaxLen)
	if s.Pattern != nil {
		schema["pattern"] = s.GetPattern()
	}
	switch {
	case s.GetUuid():
		schema["format"] = "uuid"
	case s.GetEmail():
		schema["format"] = "email"
	}
}

func limitInt(r *validate.FieldRules, schema object) {
	if i := r.GetInt32(); i != nil {
		if g, ok := i.GetGreaterThan().(*validate.Int32Rules_Gte); ok {
			schema["minimum"] = g.Gte
		}
		if l, ok := i.GetLessThan().(*validate.Int32Rules_Lte); ok {
			schema["maximum"] = l.Lte
		}
	}
	if i := r.GetUint32(); i != nil {
		if g, ok := i.GetGreaterThan().(*validate.UInt32Rules_Gte); ok {
			schema["minimum"] = g.Gte
		}
		if l, ok := i.GetLessThan().(*validate.UInt32Rules_Lte); ok {
			schema["maximum"] = l.Lte
		}
	}
}

func setIf(schema object, key string, v *uint64) {
	if v != nil {
		schema[key] = *v
	}
}
