// Package identity is what every identity provider of the account service stands on:
// the shape of what a login gives, the reasons why one fails, our own signing keys
// (API keys become tokens of ours whoever the provider is), the limits of attempts
// and the queue of mails. The providers are the folders below.
package identity

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/url"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
)

// Tokens are what a login gives: tokens, or the session of a challenge.
type Tokens struct {
	Access, ID, Refresh string
	ExpiresIn           int32 // seconds
	// Session is what the answer to the challenge needs; the tokens are empty then.
	Session string
	// Address is of whom the tokens of a login are.
	Address string
}

// Challenge is the answer of a login that needs the second factor, by Cognito's
// name.
const Challenge = "SOFTWARE_TOKEN_MFA"

// Why a login or a second factor fails; the texts are the same for every provider.
var (
	// ErrCredentials is a login whose e-mail and password do not match.
	ErrCredentials = apierr.New(errorv1.Reason_REASON_INVALID_CREDENTIALS, "e-mail and password do not match")
	// ErrPassword is a wrong password of somebody who is logged in.
	ErrPassword = apierr.New(errorv1.Reason_REASON_INVALID_CREDENTIALS, "the password is wrong")
	// ErrNotVerified is a login before the address was verified.
	ErrNotVerified = apierr.New(errorv1.Reason_REASON_EMAIL_NOT_VERIFIED, "the e-mail address still waits for verification")
	// ErrRefreshUsed is a refresh token that a rival has just used, and the session goes on.
	ErrRefreshUsed = apierr.New(errorv1.Reason_REASON_REFRESH_TOKEN_USED,
		"another call has just used the refresh token: go on with the tokens that it got, or log in again")
	// ErrRefresh is a refresh token that gives nothing.
	ErrRefresh = apierr.New(errorv1.Reason_REASON_INVALID_REFRESH_TOKEN, "the refresh token is unknown, used or expired")
	// ErrSession is an answer to a challenge that is not open.
	ErrSession = apierr.New(errorv1.Reason_REASON_INVALID_SESSION, "the session is unknown or over; log in again")
	// ErrMFAOn is a second factor that is set up twice.
	ErrMFAOn = apierr.New(errorv1.Reason_REASON_MFA_ENABLED, "the second factor is on already; turn it off first")
	// ErrUnsupported is something that the identity provider cannot do.
	ErrUnsupported = apierr.New(errorv1.Reason_REASON_PROVIDER_UNSUPPORTED, "the identity provider of this installation cannot do this")
	// ErrMFAOff is a second factor that is not there.
	ErrMFAOff = apierr.New(errorv1.Reason_REASON_MFA_NOT_ENABLED, "the second factor is off, or was not set up")
)

// NewToken is a secret of 256 random bits.
func NewToken() string {
	b := make([]byte, 32)
	_, _ = rand.Read(b) // it never fails on supported systems
	return base64.RawURLEncoding.EncodeToString(b)
}

// HashToken is how a token of NewToken is stored.
func HashToken(token string) []byte {
	sum := sha256.Sum256([]byte(token))
	return sum[:]
}

// TotpStep is how long a code of the second factor is good, in seconds.
const TotpStep = 30

// TotpURI is what an authenticator app reads from a QR code.
func TotpURI(email, secret string) string {
	u := url.URL{Scheme: "otpauth", Host: "totp", Path: "/Turumba:" + email, RawQuery: url.Values{
		"secret": {secret}, "issuer": {"Turumba"}, "algorithm": {"SHA1"}, "digits": {"6"}, "period": {fmt.Sprint(TotpStep)},
	}.Encode()}
	return u.String()
}

// HashCode is how a code is stored: bound to whom it is for.
func HashCode(who, code string) []byte {
	sum := sha256.Sum256([]byte(who + "\x00" + code))
	return sum[:]
}
