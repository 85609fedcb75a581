// Command openapi finishes the OpenAPI document that protoc-gen-openapiv3
// draws from the contract: it reads the merged document from standard input and
// writes it with what only the descriptors know — proto field names, enum words,
// limits, success codes, the error body, Idempotency-Key and security.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
)

func main() {
	if err := run(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "openapi:", err)
		os.Exit(1)
	}
}

// object is a JSON object of the document.
type object = map[string]any

func run(in io.Reader, out io.Writer) error {
	var doc object
	if err := json.NewDecoder(in).Decode(&doc); err != nil {
		return fmt.Errorf("read the merged document: %w", err)
	}
	if err := finish(doc); err != nil {
		return err
	}
	enc := json.NewEncoder(out)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(doc)
}

// finish completes the document in place.
func finish(doc object) error {
	doc["info"] = object{
		"title":       "Turumba API",
		"version":     "1",
		"description": "Message automation: accounts, contacts, channels, templates and group sends. The same contract is served as gRPC.",
		"license":     object{"name": "Apache-2.0", "identifier": "Apache-2.0"},
		"contact":     object{"name": "Turumba", "url": "https://github.com/turumba/turumba"},
	}
	doc["servers"] = []any{object{"url": "/", "description": "The server that this document came from; http://localhost:8080 for `make up`."}}
	components := child(doc, "components")
	schemas := child(components, "schemas")
	for name, s := range schemas {
		if schema, ok := s.(object); ok {
			finishSchema(name, schema)
		}
	}
	addErrors(components)
	components["securitySchemes"] = object{"bearer": object{"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}}
	for path, item := range child(doc, "paths") {
		for verb, op := range item.(object) {
			operation, ok := op.(object)
			if !ok {
				continue
			}
			if err := finishOperation(operation, schemas); err != nil {
				return fmt.Errorf("%s %s: %w", verb, path, err)
			}
		}
	}
	finishUse(doc, schemas)
	return nil
}

// child returns the object below key, made if it is missing.
func child(o object, key string) object {
	c, ok := o[key].(object)
	if !ok {
		c = object{}
		o[key] = c
	}
	return c
}
