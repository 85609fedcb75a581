package security_test

import (
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/turumba/turumba/e2e/wire"
	"github.com/turumba/turumba/e2e/world"
)

// massAssignment sets what a caller may only read, field by field: each create
// and update refuses a field that its request does not have, and each update
// mask that names one.
func massAssignment(t *testing.T, w *world.World) {
	t.Helper()
	s := report.suite("mass assignment")
	before := rowsOf(t, w, w.Vars["account_id"])
	fields := 0
	for i, f := range loadFixtures(t) {
		resource := written(f.method)
		if resource == nil {
			continue
		}
		vars := numbered(w, 5000+i)
		for _, fd := range readOnly(f.method, resource) {
			fields++
			body := maps.Clone(f.body(vars, "", ""))
			body[string(fd.Name())] = sample(fd)
			got, err := f.call(t, w, wire.REST, writer(f.method), body)
			require.NoError(t, err)
			s.check(t, got.HTTP == 400 || got.HTTP == 422, "%s with %s: want 400, got %d %v", f.RPC, fd.Name(), got.HTTP, got.Body)
		}
		if strings.Contains(f.RPC, "/Update") && f.method.Input().Fields().ByName("update_mask") != nil {
			masks(t, w, s, f, vars, resource)
		}
	}
	after := rowsOf(t, w, w.Vars["account_id"])
	for table, rows := range before {
		s.check(t, rows == after[table], "own rows changed in %s by refused requests", table)
	}
	s.coverage = fmt.Sprintf("%d output-only fields", fields)
}

// masks sends update masks that name what cannot be changed.
func masks(t *testing.T, w *world.World, s *suite, f fixture, vars map[string]string, resource protoreflect.MessageDescriptor) {
	t.Helper()
	bad := []([]string){{"*"}, {"noSuchField"}, {"credentials.x"}, {"name.x"}, {""}, make([]string, 10_000), {"name", "*"}, {"../name"}}
	for i := range 10_000 {
		bad[5][i] = fmt.Sprint("name", i)
	}
	for _, fd := range readOnly(f.method, resource) {
		bad = append(bad, []string{fd.JSONName()})
	}
	for _, mask := range bad {
		target, token := w.Target, w.Token(writer(f.method))
		got, err := target.Do(t.Context(), wire.GRPC, wire.Call{Method: f.method, Token: token, Body: f.body(vars, "", ""), Mask: mask})
		if err != nil {
			s.check(t, strings.Contains(err.Error(), "request:"), "%s with mask %.60v: %v", f.RPC, mask, err) // not even a mask
			continue
		}
		// What is larger than all fields of the request may be is not read.
		refused := got.Reason == "VALIDATION_FAILED" || len(mask) > 1000 && got.Reason == "PAYLOAD_TOO_LARGE"
		s.check(t, refused, "%s with mask %.60v: want VALIDATION_FAILED, got %q", f.RPC, mask, got.Reason)
	}
}

// writer is who may make the call: who may not learns nothing about its body.
func writer(md protoreflect.MethodDescriptor) string {
	if wire.AuthOf(md).GetOperatorGroup() != "" {
		return "operator"
	}
	return "owner"
}

// written is the resource that a create or an update answers with.
func written(md protoreflect.MethodDescriptor) protoreflect.MessageDescriptor {
	name := string(md.Name())
	if !strings.HasPrefix(name, "Create") && !strings.HasPrefix(name, "Update") {
		return nil
	}
	fields := md.Output().Fields()
	for i := range fields.Len() {
		if m := fields.Get(i).Message(); m != nil {
			return m
		}
	}
	return nil
}

// readOnly are the fields of a resource that the request has no place for.
func readOnly(md protoreflect.MethodDescriptor, resource protoreflect.MessageDescriptor) (out []protoreflect.FieldDescriptor) {
	request := md.Input().Fields()
	settable := map[protoreflect.Name]bool{}
	for i := range request.Len() {
		settable[request.Get(i).Name()] = true
		if string(request.Get(i).Name()) == bodyField(md) {
			inner := request.Get(i).Message().Fields()
			for j := range inner.Len() {
				settable[inner.Get(j).Name()] = true
			}
		}
	}
	for i := range resource.Fields().Len() {
		if fd := resource.Fields().Get(i); !settable[fd.Name()] {
			out = append(out, fd)
		}
	}
	return out
}

// sample is a value of the field's type.
func sample(fd protoreflect.FieldDescriptor) any {
	var v any
	switch fd.Kind() {
	case protoreflect.BoolKind:
		v = true
	case protoreflect.Int32Kind, protoreflect.Int64Kind, protoreflect.Uint32Kind, protoreflect.Uint64Kind:
		v = 7
	case protoreflect.EnumKind:
		v = string(fd.Enum().Values().Get(fd.Enum().Values().Len() - 1).Name())
	case protoreflect.MessageKind:
		v = map[string]any{}
		if strings.HasSuffix(string(fd.Message().FullName()), "Timestamp") {
			v = "2030-01-01T00:00:00Z"
		}
	default:
		v = "0190a5c8-1111-7000-8000-00000000beef"
	}
	if fd.IsList() {
		return []any{v}
	}
	return v
}
