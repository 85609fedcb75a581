package rest

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
)

// body is the error of decision C1, the only shape in which REST tells of a
// failure.
type body struct {
	Detail    string       `json:"detail"`
	Code      string       `json:"code"`
	Fields    []fieldError `json:"fields,omitempty"`
	RequestID string       `json:"request_id"`
}

// fieldError names one wrong field of a request.
type fieldError struct {
	Field   string `json:"field"`
	Message string `json:"message"`
}

func errorBody(e *apierr.Error, requestID string) body {
	b := body{Detail: e.Message, Code: apierr.Name(e.Reason), RequestID: requestID}
	for _, f := range e.Fields {
		b.Fields = append(b.Fields, fieldError{Field: f.Field, Message: f.Message})
	}
	return b
}

// writeError answers with err, whatever went wrong and wherever.
func writeError(w http.ResponseWriter, r *http.Request, err error) {
	if stopped := stopCause(r.Context()); stopped != nil {
		err = stopped
	}
	e := restError(err)
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Del("Trailer")
	h.Del("Transfer-Encoding")
	if e.Reason == errorv1.Reason_REASON_UNAUTHENTICATED {
		h.Set("WWW-Authenticate", `Bearer realm="turumba"`)
	}
	retryAfter(h, e)
	out, merr := json.Marshal(errorBody(e, h.Get(headerRequestID)))
	if merr != nil {
		out = []byte(`{"detail":"internal error","code":"INTERNAL"}`)
	}
	w.WriteHeader(apierr.HTTPStatus(e.Reason))
	if r.Method != http.MethodHead {
		_, _ = w.Write(out) // the client went away; there is nobody to tell
	}
}

// restError gives a gateway-made failure its reason. Errors of the services
// carry one already; without it, InvalidArgument comes from the transcoder,
// which could not read the body, a path or a query parameter; it keeps only the
// text of our own errors, which begins with the reason.
func restError(err error) *apierr.Error {
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) || strings.Contains(err.Error(), "http: request body too large") {
		return apierr.New(errorv1.Reason_REASON_PAYLOAD_TOO_LARGE, "the body is larger than the limit")
	}
	var own *apierr.Error
	if errors.As(err, &own) {
		return own
	}
	st, ok := status.FromError(err)
	if ok && st.Code() == codes.InvalidArgument && !hasReason(st) {
		name, text, _ := strings.Cut(st.Message(), ": ")
		if reason, known := apierr.ReasonOf(name); known {
			return apierr.New(reason, "%s", text)
		}
		return apierr.New(errorv1.Reason_REASON_INVALID_JSON, "%s", st.Message())
	}
	return apierr.From(err)
}

func hasReason(st *status.Status) bool {
	for _, d := range st.Details() {
		if _, ok := d.(*errdetails.ErrorInfo); ok {
			return true
		}
	}
	return false
}

// handleError is the transcoder's error handler.
func handleError(_ context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, r *http.Request, err error) {
	writeError(w, r, err)
}

var errNoRoute = apierr.New(errorv1.Reason_REASON_NOT_FOUND, "no such route")

// notAllowed is the error of a path that is no route of this method.
func notAllowed(method string) error {
	return apierr.New(errorv1.Reason_REASON_METHOD_NOT_ALLOWED, "%s is not allowed here", method)
}
