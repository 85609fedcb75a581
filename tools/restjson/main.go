// Command protoc-gen-restjson writes, for each message that REST answers with, a
// function that appends it as JSON: what the general encoder of gateway/rest does by
// descriptors, as plain code (docs/adr/0036). It is a plugin of buf; all files of the
// contract come in one call.
package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/compiler/protogen"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/pluginpb"
)

// contract is the package that the contract's own packages are in.
const contract = "turumba."

func main() {
	protogen.Options{}.Run(func(p *protogen.Plugin) error {
		p.SupportedFeatures = uint64(pluginpb.CodeGeneratorResponse_FEATURE_PROTO3_OPTIONAL)
		a := &answers{packages: map[protogen.GoImportPath]*protogen.File{}, messages: map[protoreflect.FullName]*protogen.Message{}, enums: map[protoreflect.FullName]*protogen.Enum{}}
		for _, f := range p.Files {
			a.packages[f.GoImportPath] = f
			a.findRoutes(f)
		}
		return a.write(p)
	})
}

// answers are the types that REST answers consist of.
type answers struct {
	packages map[protogen.GoImportPath]*protogen.File // one file of each Go package
	messages map[protoreflect.FullName]*protogen.Message
	enums    map[protoreflect.FullName]*protogen.Enum
}

// findRoutes adds what the routes of one file answer with.
func (a *answers) findRoutes(f *protogen.File) {
	for _, s := range f.Services {
		for _, m := range s.Methods {
			rule, _ := proto.GetExtension(m.Desc.Options(), annotations.E_Http).(*annotations.HttpRule)
			if rule.GetPattern() == nil {
				continue
			}
			a.add(body(m.Output, rule.GetResponseBody()))
		}
	}
}

// body is what is written of an answer: the field that is the body, if there is one.
func body(m *protogen.Message, field string) *protogen.Message {
	for _, f := range m.Fields {
		if string(f.Desc.Name()) == field && f.Message != nil && !f.Desc.IsList() {
			return f.Message
		}
	}
	return m
}

// add adds a message of the contract and all that it consists of.
func (a *answers) add(m *protogen.Message) {
	name := m.Desc.FullName()
	if a.messages[name] != nil || !strings.HasPrefix(string(name), contract) {
		return
	}
	a.messages[name] = m
	for _, f := range m.Fields {
		if f.Desc.IsMap() {
			f = f.Message.Fields[1]
		}
		switch {
		case f.Enum != nil:
			a.enums[f.Enum.Desc.FullName()] = f.Enum
		case f.Message != nil:
			a.add(f.Message)
		}
	}
}

// write writes a file for each package of the contract, and one that knows all.
func (a *answers) write(p *protogen.Plugin) error {
	files := map[protogen.GoImportPath]*file{}
	of := func(id protogen.GoIdent) *file {
		if files[id.GoImportPath] == nil {
			files[id.GoImportPath] = a.newFile(p, "answers_"+short(a.packages[id.GoImportPath])+"_gen.go")
		}
		return files[id.GoImportPath]
	}
	for _, name := range slices.Sorted(maps.Keys(a.messages)) {
		m := a.messages[name]
		if err := of(m.GoIdent).message(m); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(a.enums)) {
		of(a.enums[name].GoIdent).enum(a.enums[name])
	}
	a.newFile(p, "answers_gen.go").index()
	for _, f := range files {
		f.end()
	}
	return nil
}
