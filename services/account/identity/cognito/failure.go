package cognito

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	account "github.com/turumba/turumba/services/account"
	"github.com/turumba/turumba/services/account/identity"
)

// The exceptions of Cognito that are known here, by their codes.
const (
	aliasExists      = "AliasExistsException"
	codeMismatch     = "CodeMismatchException"
	codeUndelivered  = "CodeDeliveryFailureException"
	expiredCode      = "ExpiredCodeException"
	factorMismatch   = "EnableSoftwareTokenMFAException"
	factorNotFound   = "SoftwareTokenMFANotFoundException"
	forbidden        = "ForbiddenException"
	internalError    = "InternalErrorException"
	invalidParameter = "InvalidParameterException"
	invalidPassword  = "InvalidPasswordException"
	lambdaRefused    = "UserLambdaValidationException"
	limitExceeded    = "LimitExceededException"
	notAuthorized    = "NotAuthorizedException"
	passwordReused   = "PasswordHistoryPolicyViolationException"
	resetRequired    = "PasswordResetRequiredException"
	throttled        = "TooManyRequestsException"
	tooManyFailures  = "TooManyFailedAttemptsException"
	unauthorized     = "UnauthorizedException"
	userExists       = "UsernameExistsException"
	userNotConfirmed = "UserNotConfirmedException"
	userNotFound     = "UserNotFoundException"
)

// busyWait is what somebody is told to wait whom Cognito throttles: it does not say for
// how long, which is 1 s for its requests and up to 15 min after wrong passwords.
const busyWait = 30 * time.Second

var (
	errBusy        = apierr.RateLimited(busyWait, "the identity provider had too many attempts")
	errAway        = apierr.New(errorv1.Reason_REASON_UNAVAILABLE, "the identity provider cannot be reached now")
	errWeak        = apierr.New(errorv1.Reason_REASON_WEAK_PASSWORD, "the password does not meet the rules of the user pool")
	errRefused     = apierr.New(errorv1.Reason_REASON_PERMISSION_DENIED, "the rules of the user pool refuse it")
	errToken       = apierr.Unauthenticated(nil)
	errCode        = account.ErrInvalidCode
	errCredentials = identity.ErrCredentials
)

// step is what Cognito was asked for: one exception means another thing at another.
type step string

const (
	signingUp  step = "sign up"
	confirming step = "confirm the sign-up"
	loggingIn  step = "log in"
	answering  step = "answer the challenge"
	refreshing step = "refresh"
	revoking   step = "revoke the token"
	mailing    step = "mail a code"
	resetting  step = "reset the password"
	changing   step = "change the password"
	enrolling  step = "set up the second factor"
	proving    step = "check the second factor"
	operating  step = "look after the user"
)

// common are what an exception means wherever it comes.
var common = map[string]*apierr.Error{
	throttled: errBusy, limitExceeded: errBusy, tooManyFailures: errBusy,
	internalError: errAway, codeUndelivered: errAway,
	codeMismatch: errCode, expiredCode: errCode, factorMismatch: errCode,
	invalidPassword: errWeak, passwordReused: errWeak,
	lambdaRefused: errRefused, forbidden: errRefused,
	factorNotFound: identity.ErrMFAOff,
}

// special are what it means at one step. None tells a known address from an unknown
// one: nil stands for "as if it had worked".
var special = map[step]map[string]*apierr.Error{
	confirming: {notAuthorized: errCode, userNotFound: errCode, aliasExists: errCode, invalidParameter: errCode},
	loggingIn: {
		notAuthorized: errCredentials, userNotFound: errCredentials, resetRequired: errCredentials, invalidPassword: errCredentials,
		invalidParameter: errCredentials, userNotConfirmed: identity.ErrNotVerified,
	},
	answering:  {notAuthorized: identity.ErrSession, userNotFound: identity.ErrSession, expiredCode: identity.ErrSession, invalidParameter: errCode},
	refreshing: {notAuthorized: identity.ErrRefresh, userNotFound: identity.ErrRefresh, invalidParameter: identity.ErrRefresh},
	revoking:   {notAuthorized: nil, unauthorized: nil, "UnsupportedTokenTypeException": nil, invalidParameter: nil},
	mailing:    {notAuthorized: nil, userNotFound: nil, userNotConfirmed: nil, invalidParameter: nil, limitExceeded: nil, resetRequired: nil},
	resetting:  {notAuthorized: errCode, userNotFound: errCode, userNotConfirmed: errCode, invalidParameter: errCode},
	changing:   {notAuthorized: identity.ErrPassword, userNotFound: errToken, invalidParameter: errWeak},
	enrolling:  {notAuthorized: identity.ErrPassword, userNotFound: identity.ErrPassword, invalidPassword: identity.ErrPassword},
	proving:    {notAuthorized: errToken, invalidParameter: identity.ErrMFAOff},
}

// failure gives an error of Cognito our reason. What is not foreseen is our fault,
// such as a wrong setting: the log has it, the caller does not.
func failure(at step, err error) error {
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	var told smithy.APIError
	if !errors.As(err, &told) {
		return errAway.Wrap(err)
	}
	if reason, ok := special[at][told.ErrorCode()]; ok {
		if reason == nil {
			return nil
		}
		return reason.Wrap(err)
	}
	if reason, ok := common[told.ErrorCode()]; ok {
		return reason.Wrap(err)
	}
	var answer *smithyhttp.ResponseError
	if errors.As(err, &answer) && answer.HTTPStatusCode() >= http.StatusInternalServerError {
		return errAway.Wrap(err)
	}
	return fmt.Errorf("cognito: %s: %w", at, err)
}

// is reports whether an error is the exception with the code.
func is(err error, code string) bool {
	var told smithy.APIError
	return errors.As(err, &told) && told.ErrorCode() == code
}
