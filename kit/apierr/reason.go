package apierr

import (
	"net/http"
	"strings"

	"google.golang.org/grpc/codes"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
)

const reasonPrefix = "REASON_"

// StatusClientClosedRequest is the HTTP status of a request whose caller went
// away; nobody receives it, it only appears in logs and metrics.
const StatusClientClosedRequest = 499

type mapping struct {
	code codes.Code
	http int
}

// table is the one place that gives a reason its gRPC code and HTTP status. It
// is never written to; a test checks that every reason of the contract is here.
var table = map[errorv1.Reason]mapping{
	errorv1.Reason_REASON_UNAVAILABLE:       {codes.Unavailable, http.StatusServiceUnavailable},
	errorv1.Reason_REASON_DEADLINE_EXCEEDED: {codes.DeadlineExceeded, http.StatusGatewayTimeout},
	errorv1.Reason_REASON_CANCELLED:         {codes.Canceled, StatusClientClosedRequest},
	errorv1.Reason_REASON_INTERNAL:          {codes.Internal, http.StatusInternalServerError},
	errorv1.Reason_REASON_NOT_IMPLEMENTED:   {codes.Unimplemented, http.StatusNotFound},

	errorv1.Reason_REASON_INVALID_FILTER:    {codes.InvalidArgument, http.StatusBadRequest},
	errorv1.Reason_REASON_INVALID_SORT:      {codes.InvalidArgument, http.StatusBadRequest},
	errorv1.Reason_REASON_INVALID_PAGE:      {codes.InvalidArgument, http.StatusBadRequest},
	errorv1.Reason_REASON_UNKNOWN_PARAMETER: {codes.InvalidArgument, http.StatusBadRequest},
	errorv1.Reason_REASON_INVALID_JSON:      {codes.InvalidArgument, http.StatusBadRequest},
	errorv1.Reason_REASON_INVALID_HEADER:    {codes.InvalidArgument, http.StatusBadRequest},
	errorv1.Reason_REASON_INVALID_CODE:      {codes.InvalidArgument, http.StatusBadRequest},

	errorv1.Reason_REASON_UNAUTHENTICATED:       {codes.Unauthenticated, http.StatusUnauthorized},
	errorv1.Reason_REASON_INVALID_CREDENTIALS:   {codes.Unauthenticated, http.StatusUnauthorized},
	errorv1.Reason_REASON_INVALID_REFRESH_TOKEN: {codes.Unauthenticated, http.StatusUnauthorized},
	errorv1.Reason_REASON_INVALID_SESSION:       {codes.Unauthenticated, http.StatusUnauthorized},
	errorv1.Reason_REASON_PERSON_REQUIRED:       {codes.PermissionDenied, http.StatusForbidden},
	errorv1.Reason_REASON_EMAIL_NOT_VERIFIED:    {codes.PermissionDenied, http.StatusForbidden},
	errorv1.Reason_REASON_PERMISSION_DENIED:     {codes.PermissionDenied, http.StatusForbidden},
	errorv1.Reason_REASON_ACCOUNT_SUSPENDED:     {codes.PermissionDenied, http.StatusForbidden},
	errorv1.Reason_REASON_NOT_FOUND:             {codes.NotFound, http.StatusNotFound},
	errorv1.Reason_REASON_METHOD_NOT_ALLOWED:    {codes.Unimplemented, http.StatusMethodNotAllowed},

	errorv1.Reason_REASON_CONFLICT:               {codes.Aborted, http.StatusConflict},
	errorv1.Reason_REASON_REFRESH_TOKEN_USED:     {codes.Aborted, http.StatusConflict},
	errorv1.Reason_REASON_DUPLICATE_EMAIL:        {codes.AlreadyExists, http.StatusConflict},
	errorv1.Reason_REASON_DUPLICATE_PHONE:        {codes.AlreadyExists, http.StatusConflict},
	errorv1.Reason_REASON_DUPLICATE_IDENTIFIER:   {codes.AlreadyExists, http.StatusConflict},
	errorv1.Reason_REASON_DUPLICATE_NAME:         {codes.AlreadyExists, http.StatusConflict},
	errorv1.Reason_REASON_ALREADY_MEMBER:         {codes.AlreadyExists, http.StatusConflict},
	errorv1.Reason_REASON_MFA_ENABLED:            {codes.FailedPrecondition, http.StatusConflict},
	errorv1.Reason_REASON_MFA_NOT_ENABLED:        {codes.FailedPrecondition, http.StatusConflict},
	errorv1.Reason_REASON_ALREADY_INVITED:        {codes.AlreadyExists, http.StatusConflict},
	errorv1.Reason_REASON_INVITATION_OVER:        {codes.FailedPrecondition, http.StatusConflict},
	errorv1.Reason_REASON_PROVIDER_UNSUPPORTED:   {codes.FailedPrecondition, http.StatusConflict},
	errorv1.Reason_REASON_USE_INVITATION:         {codes.FailedPrecondition, http.StatusConflict},
	errorv1.Reason_REASON_LAST_OWNER:             {codes.FailedPrecondition, http.StatusConflict},
	errorv1.Reason_REASON_IN_USE:                 {codes.FailedPrecondition, http.StatusConflict},
	errorv1.Reason_REASON_INVALID_STATE:          {codes.FailedPrecondition, http.StatusConflict},
	errorv1.Reason_REASON_IDEMPOTENCY_KEY_REUSED: {codes.AlreadyExists, http.StatusConflict},

	errorv1.Reason_REASON_PAYLOAD_TOO_LARGE:      {codes.ResourceExhausted, http.StatusRequestEntityTooLarge},
	errorv1.Reason_REASON_UNSUPPORTED_MEDIA_TYPE: {codes.InvalidArgument, http.StatusUnsupportedMediaType},

	errorv1.Reason_REASON_VALIDATION_FAILED:           {codes.InvalidArgument, http.StatusUnprocessableEntity},
	errorv1.Reason_REASON_SECRET_REQUIRED:             {codes.InvalidArgument, http.StatusUnprocessableEntity},
	errorv1.Reason_REASON_ACCOUNT_REQUIRED:            {codes.InvalidArgument, http.StatusUnprocessableEntity},
	errorv1.Reason_REASON_WEAK_PASSWORD:               {codes.InvalidArgument, http.StatusUnprocessableEntity},
	errorv1.Reason_REASON_UNRESOLVED_REFERENCE:        {codes.InvalidArgument, http.StatusUnprocessableEntity},
	errorv1.Reason_REASON_CHANNEL_REQUIRED:            {codes.InvalidArgument, http.StatusUnprocessableEntity},
	errorv1.Reason_REASON_TEMPLATE_INVALID:            {codes.InvalidArgument, http.StatusUnprocessableEntity},
	errorv1.Reason_REASON_CHANNEL_VERIFICATION_FAILED: {codes.FailedPrecondition, http.StatusUnprocessableEntity},

	errorv1.Reason_REASON_RATE_LIMITED:    {codes.ResourceExhausted, http.StatusTooManyRequests},
	errorv1.Reason_REASON_REQUEST_TIMEOUT: {codes.DeadlineExceeded, http.StatusRequestTimeout},
	errorv1.Reason_REASON_QUOTA_EXCEEDED:  {codes.ResourceExhausted, http.StatusTooManyRequests},
}

// CodeOf returns the gRPC code of a reason; codes.Internal for an unknown one.
func CodeOf(reason errorv1.Reason) codes.Code {
	if m, ok := table[reason]; ok {
		return m.code
	}
	return codes.Internal
}

// HTTPStatus returns the HTTP status of a reason; 500 for an unknown one.
func HTTPStatus(reason errorv1.Reason) int {
	if m, ok := table[reason]; ok {
		return m.http
	}
	return http.StatusInternalServerError
}

// Name returns the reason as callers see it: without the REASON_ prefix.
func Name(reason errorv1.Reason) string {
	return strings.TrimPrefix(reason.String(), reasonPrefix)
}

// ReasonOf returns the reason with the given name, and false if there is none.
func ReasonOf(name string) (errorv1.Reason, bool) {
	value, ok := errorv1.Reason_value[reasonPrefix+name]
	reason := errorv1.Reason(value)
	return reason, ok && reason != errorv1.Reason_REASON_UNSPECIFIED
}
