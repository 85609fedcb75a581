package server

import (
	"context"

	"google.golang.org/protobuf/proto"

	account "github.com/turumba/turumba/services/account"
	"github.com/turumba/turumba/services/account/identity"
)

// Identity is an identity provider: who people are. The server calls it for
// everything that takes a password, a code or a session.
type Identity interface {
	SignUp
	SignIn
	SignOut
	Passwords
	SecondFactor
}

// SignUp makes users. None of its answers tells whether an address is known.
type SignUp interface {
	// Register starts a registration, for which a code is mailed. respond makes the answer,
	// which is stored for the idempotency key, of its token.
	Register(ctx context.Context, r account.Registration, password string, respond func(token string) proto.Message) error
	// Verify checks the code of the registration that the token is of and creates what
	// was registered.
	Verify(ctx context.Context, email, code, token string) (*account.Registration, error)
	// Resend mails a new code if the registration that the token is of waits for one.
	Resend(ctx context.Context, email, token string) error
}

// SignIn gives tokens.
type SignIn interface {
	// Login gives tokens for a password, or the session of a challenge.
	Login(ctx context.Context, email, password string) (identity.Tokens, error)
	// Answer ends a challenge with a code.
	Answer(ctx context.Context, session, code string) (identity.Tokens, error)
	// Refresh gives new tokens.
	Refresh(ctx context.Context, refreshToken string) (identity.Tokens, error)
}

// SignOut ends sessions; their access tokens no longer count within 5 s.
type SignOut interface {
	// Logout ends the session of a refresh token; an unknown one changes nothing.
	Logout(ctx context.Context, refreshToken string) error
	// LogoutEverywhere ends every session of a user.
	LogoutEverywhere(ctx context.Context, userID string) error
}

// Passwords sets new passwords.
type Passwords interface {
	// Forgot mails a code for Reset, if the address is a user's.
	Forgot(ctx context.Context, email string) error
	// Reset sets a password with the code of the mail and ends every session.
	Reset(ctx context.Context, email, code, password string) error
	// Change sets a password for who knows the old one and ends the other sessions.
	Change(ctx context.Context, userID, sessionID, current, password string) error
}

// SecondFactor is an authenticator app beside the password.
type SecondFactor interface {
	// SetupTotp makes a secret, for who knows the password; it does nothing yet.
	SetupTotp(ctx context.Context, userID, password string) (secret, uri string, err error)
	// VerifyTotp turns the second factor on with its first code.
	VerifyTotp(ctx context.Context, userID, code string) (recoveryCodes []string, err error)
	// DisableTotp turns it off with a code.
	DisableTotp(ctx context.Context, userID, code string) error
	// RenewRecoveryCodes replaces the recovery codes.
	RenewRecoveryCodes(ctx context.Context, userID, code string) ([]string, error)
}
