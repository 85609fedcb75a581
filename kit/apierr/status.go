package apierr

import (
	"context"
	"errors"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
)

// GRPCStatus returns the error as a gRPC status with ErrorInfo and, where they
// apply, BadRequest and RetryInfo details. The cause is not part of it.
func (e *Error) GRPCStatus() *status.Status {
	plain := status.New(e.Code, valid(e.Message))
	detailed, err := plain.WithDetails(e.details()...)
	if err != nil {
		return plain
	}
	return detailed
}

func (e *Error) details() []protoadapt.MessageV1 {
	info := &errdetails.ErrorInfo{Reason: Name(e.Reason), Domain: Domain}
	if len(e.Meta) > 0 {
		info.Metadata = make(map[string]string, len(e.Meta))
		for key, value := range e.Meta {
			info.Metadata[valid(key)] = valid(value)
		}
	}
	details := []protoadapt.MessageV1{info}
	if len(e.Fields) > 0 {
		bad := &errdetails.BadRequest{}
		for _, f := range e.Fields {
			bad.FieldViolations = append(bad.FieldViolations, &errdetails.BadRequest_FieldViolation{
				Field: valid(f.Field), Description: valid(f.Message),
			})
		}
		details = append(details, bad)
	}
	if e.RetryAfter > 0 {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(e.RetryAfter)})
	}
	return details
}

// valid replaces what is not UTF-8, which protobuf refuses to carry.
func valid(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

// From returns err as an *Error: the *Error in its chain; or what a gRPC status
// carries (the client side); or DEADLINE_EXCEEDED and CANCELLED for the
// context's errors; or INTERNAL with a fixed text. The result wraps err unless
// it is err. From(nil) is nil.
func From(err error) *Error {
	if err == nil {
		return nil
	}
	if e, ok := asError(err); ok {
		return e
	}
	var carrier interface{ GRPCStatus() *status.Status }
	if errors.As(err, &carrier) && carrier.GRPCStatus() != nil {
		return fromStatus(carrier.GRPCStatus()).Wrap(err)
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return ofReason(errorv1.Reason_REASON_DEADLINE_EXCEEDED).Wrap(err)
	case errors.Is(err, context.Canceled):
		return ofReason(errorv1.Reason_REASON_CANCELLED).Wrap(err)
	}
	return Internal(err)
}

// fromStatus reads the details that GRPCStatus writes. A status without our
// ErrorInfo was made by the transport or another system; its text may hold
// addresses, so only the code is kept.
func fromStatus(s *status.Status) *Error {
	e := ofReason(reasonOfCode(s.Code(), s.Message()))
	for _, detail := range s.Details() {
		switch d := detail.(type) {
		case *errdetails.ErrorInfo:
			reason, known := ReasonOf(d.GetReason())
			if d.GetDomain() == Domain && known {
				e.Reason, e.Code, e.Message, e.Meta = reason, CodeOf(reason), s.Message(), d.GetMetadata()
			}
		case *errdetails.BadRequest:
			for _, v := range d.GetFieldViolations() {
				e.Fields = append(e.Fields, Field{Field: v.GetField(), Message: v.GetDescription()})
			}
		case *errdetails.RetryInfo:
			e.RetryAfter = d.GetRetryDelay().AsDuration()
		}
	}
	return e
}

// reasonOfCode maps a status that carries no reason. The gRPC library answers
// ResourceExhausted for messages above the size limit, hence the look at the
// text.
func reasonOfCode(code codes.Code, message string) errorv1.Reason {
	switch code {
	case codes.Canceled:
		return errorv1.Reason_REASON_CANCELLED
	case codes.DeadlineExceeded:
		return errorv1.Reason_REASON_DEADLINE_EXCEEDED
	case codes.Unavailable:
		return errorv1.Reason_REASON_UNAVAILABLE
	case codes.Unimplemented:
		return errorv1.Reason_REASON_NOT_IMPLEMENTED
	case codes.Unauthenticated:
		return errorv1.Reason_REASON_UNAUTHENTICATED
	case codes.PermissionDenied:
		return errorv1.Reason_REASON_PERMISSION_DENIED
	case codes.ResourceExhausted:
		if strings.Contains(message, "larger than max") {
			return errorv1.Reason_REASON_PAYLOAD_TOO_LARGE
		}
		return errorv1.Reason_REASON_RATE_LIMITED
	default:
		return errorv1.Reason_REASON_INTERNAL
	}
}

// ofReason returns the error of a reason with its general text.
func ofReason(reason errorv1.Reason) *Error {
	return New(reason, "%s", strings.ToLower(strings.ReplaceAll(textOf(reason), "_", " ")))
}

func textOf(reason errorv1.Reason) string {
	switch reason {
	case errorv1.Reason_REASON_INTERNAL:
		return "internal error"
	case errorv1.Reason_REASON_UNAVAILABLE:
		return "the service is not available, try again later"
	default:
		return Name(reason)
	}
}
