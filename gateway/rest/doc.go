// Package rest is the HTTP face of the product: it transcodes REST to gRPC and
// owns what is HTTP and nothing else — routes, JSON, the error body, headers,
// CORS, sizes, slow clients and the API documentation. It holds no rule of the
// product: tokens, tenancy, permissions and validation live in the gRPC
// interceptor chain that every call through it runs.
package rest
