// Package idempotency carries an Idempotency-Key from the interceptor chain,
// which reads and hashes it, to the transaction, which stores it (kit/pg). It
// is a package of its own so that neither needs to know the other.
package idempotency

import "context"

// Request is a call that came with an idempotency key.
type Request struct {
	// Method is the full gRPC method, for example "/pkg.Service/Create".
	Method string
	// Key is the caller's key, 1 to 255 printable ASCII characters.
	Key string
	// Hash is the SHA-256 of the request.
	Hash []byte
	// OwnerHint is the owner of the key where the handler names none: the user
	// of the call. It may be empty.
	OwnerHint string
}

type contextKey struct{}

// With returns a context that carries the request.
func With(ctx context.Context, r *Request) context.Context {
	return context.WithValue(ctx, contextKey{}, r)
}

// From returns the request that the context carries, if it does.
func From(ctx context.Context) (*Request, bool) {
	r, ok := ctx.Value(contextKey{}).(*Request)
	return r, ok && r != nil
}
