// Package openapi holds the OpenAPI 3.1 description of the REST face. It is
// generated from the contract; the gateway serves it.
package openapi

import _ "embed"

// Document is the whole description as JSON.
//
//go:embed openapi.json
var Document []byte
