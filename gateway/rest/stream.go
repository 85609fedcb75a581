package rest

import (
	"context"
	"net/http"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/status"

	"github.com/turumba/turumba/kit/apierr"
)

// streamWriter gives a stream that fails before its first line the status of
// the error's reason; the transcoder knows only that of its gRPC code.
type streamWriter struct {
	http.ResponseWriter
	failed int // status of the failure; 0 without one
}

type (
	streamKey struct{}
	stopKey   struct{}
)

// BaseContext is the one of a http.Server that stops with ctx: its requests may
// finish, its streams end at once.
func BaseContext(ctx context.Context) context.Context {
	return context.WithValue(context.WithoutCancel(ctx), stopKey{}, ctx)
}

// serveStream serves a streamed exchange.
func serveStream(w http.ResponseWriter, r *http.Request, next http.Handler) {
	s := &streamWriter{ResponseWriter: w}
	ctx, cancel := context.WithCancel(context.WithValue(r.Context(), streamKey{}, s))
	defer cancel()
	if stop, ok := ctx.Value(stopKey{}).(context.Context); ok {
		defer context.AfterFunc(stop, cancel)()
	}
	next.ServeHTTP(s, r.WithContext(ctx))
}

// WriteHeader implements http.ResponseWriter.
func (s *streamWriter) WriteHeader(code int) {
	if s.failed != 0 {
		code = s.failed
	}
	s.ResponseWriter.WriteHeader(code)
}

// Flush implements http.Flusher, which the transcoder asks for.
func (s *streamWriter) Flush() {
	_ = http.NewResponseController(s.ResponseWriter).Flush() // the client went away; the next write tells
}

// Unwrap lets http.ResponseController through.
func (s *streamWriter) Unwrap() http.ResponseWriter { return s.ResponseWriter }

// handleStreamError is the transcoder's handler of errors in streams.
func handleStreamError(ctx context.Context, err error) *status.Status {
	st := runtime.DefaultStreamErrorHandler(ctx, err)
	s, ok := ctx.Value(streamKey{}).(*streamWriter)
	if !ok {
		return st
	}
	s.failed = apierr.HTTPStatus(restError(err).Reason)
	// The marshaler of the error line knows nothing but the status.
	if with, err := st.WithDetails(&errdetails.RequestInfo{RequestId: s.Header().Get(headerRequestID)}); err == nil {
		st = with
	}
	return st
}
