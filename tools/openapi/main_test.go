package main

import (
	"bytes"
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// TestDocument checks the committed document: every route has its security,
// its errors and the names of the contract.
func TestDocument(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("../../gen/openapi/openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		OpenAPI string
		Paths   map[string]map[string]struct {
			OperationID string
			Summary     string
			Security    []any
			Parameters  []struct{ Name, In string }
			Responses   map[string]any
		}
		Components struct{ Schemas map[string]object }
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(doc.OpenAPI, "3.1") || len(doc.Paths) < 20 {
		t.Fatalf("openapi %s with %d paths", doc.OpenAPI, len(doc.Paths))
	}
	for path, item := range doc.Paths {
		for verb, op := range item {
			if op.Security == nil || op.Summary == "" || op.Responses["500"] == nil {
				t.Errorf("%s %s: security, summary or errors are missing", verb, path)
			}
			key := slices.ContainsFunc(op.Parameters, func(p struct{ Name, In string }) bool { return p.Name == "Idempotency-Key" })
			if created := op.Responses["201"] != nil; created != key {
				t.Errorf("%s %s: creates, and only they, take an Idempotency-Key", verb, path)
			}
			md, err := methodOf(op.OperationID)
			if err != nil {
				t.Error(err)
				continue
			}
			for _, p := range op.Parameters {
				if fd := md.Input().Fields().ByName(protoreflect.Name(p.Name)); inBody(fd) {
					t.Errorf("%s %s: the gateway refuses the parameter %s, a message", verb, path, p.Name)
				}
				if strings.ToLower(p.Name) != p.Name && p.In == "query" {
					t.Errorf("%s %s: parameter %s is not a name of the contract", verb, path, p.Name)
				}
			}
		}
	}
	status, _ := doc.Components.Schemas["turumba.messaging.v1.MessageStatus"]["enum"].([]any)
	if !slices.Contains(status, any("permanently_failed")) {
		t.Errorf("enum words are missing: %v", status)
	}
	if bytes.Contains(data, []byte("grpc-status")) {
		t.Error("default errors of the generator are still there")
	}
}
