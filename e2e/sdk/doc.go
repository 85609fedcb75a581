// Package sdk runs the clients that are generated from the OpenAPI document against
// the whole product.
package sdk
