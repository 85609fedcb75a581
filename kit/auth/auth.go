// Package auth is who is calling and what they may do: the caller and the scope
// that the interceptor chain puts in the context, and the verification of
// tokens behind them.
package auth

import (
	"context"
	"slices"
	"time"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
)

// The states of an account in which it may not do everything.
const (
	AccountSuspended = "suspended"
	AccountClosed    = "closed"
)

// ErrSuspended is a call that the state of the account does not allow.
var ErrSuspended = apierr.New(errorv1.Reason_REASON_ACCOUNT_SUSPENDED, "the account is suspended or closed and cannot do this")

// Membership is what the caller may do in one account.
type Membership struct {
	AccountID     string
	AccountName   string
	AccountStatus string
	RoleID        string
	// Permissions are those of the caller's own role there, sorted.
	Permissions []string
	// Quotas are how much the account may use, by name; 0 is no limit.
	Quotas map[string]int64
}

// Can reports whether the membership holds the permission.
func (m Membership) Can(permission string) bool {
	_, ok := slices.BinarySearch(m.Permissions, permission)
	return ok
}

// Caller is who makes the call. The zero Caller is anonymous.
type Caller struct {
	// UserID is the local user; empty for a subject without one.
	UserID string
	// APIKeyID is the API key that calls instead of a user.
	APIKeyID string
	// SessionID is the login that the token came from.
	SessionID string
	// EndedSessions are the user's sessions whose tokens no longer count.
	EndedSessions []string
	// SessionsSince is when the user's sessions ended all at once: of the tokens that tell
	// no epoch, those whose session began later count. Zero when they never did.
	SessionsSince time.Time
	// CredentialEpoch is raised by whatever ends the user's sessions: tokens of an older
	// one no longer count.
	CredentialEpoch int64
	// KeptSessions count although their tokens are older than CredentialEpoch or
	// SessionsSince: the session in which a password was changed.
	KeptSessions []string
	// Subject, Issuer and TokenID are sub, iss and jti of the token.
	Subject, Issuer, TokenID string
	// Groups are the OIDC groups; they gate platform-operator RPCs only.
	Groups []string
	// Memberships are the accounts of the caller.
	Memberships []Membership
	// Service is the identity of a service that calls by itself.
	Service string
	// TokenExpiry is when the token ends.
	TokenExpiry time.Time
}

// Membership returns what the caller may do in the account.
func (c Caller) Membership(accountID string) (Membership, bool) {
	for _, m := range c.Memberships {
		if m.AccountID == accountID {
			return m, true
		}
	}
	return Membership{}, false
}

// Scope returns the accounts in which the caller holds the permission.
func (c Caller) Scope(permission string) Scope {
	scope := Scope{}
	for _, m := range c.Memberships {
		if m.Can(permission) {
			scope = append(scope, m.AccountID)
		}
	}
	return scope
}

// Scope is the accounts in which the caller holds the permission of the RPC.
type Scope []string

// Target is the account that a create writes to (decision B3): the named one,
// or the only one of the scope.
func (s Scope) Target(named string, c Caller) (string, error) {
	if named == "" {
		if len(s) == 1 {
			return s[0], nil
		}
		return "", apierr.New(errorv1.Reason_REASON_ACCOUNT_REQUIRED, "account_id must name one of your accounts").
			WithFields(apierr.Field{Field: "account_id", Message: "is needed: you may create in several accounts"})
	}
	if slices.Contains(s, named) {
		return named, nil
	}
	m, member := c.Membership(named)
	switch {
	case member && (m.AccountStatus == AccountSuspended || m.AccountStatus == AccountClosed):
		return "", ErrSuspended
	case member:
		return "", apierr.New(errorv1.Reason_REASON_PERMISSION_DENIED, "your role in this account does not allow it")
	}
	return "", apierr.NotFound("account")
}

// Person returns the caller's user id, or PERSON_REQUIRED for who is none, such as
// an API key.
func (c Caller) Person() (userID string, err error) {
	if c.UserID == "" {
		return "", apierr.New(errorv1.Reason_REASON_PERSON_REQUIRED, "only a person with a login can do this")
	}
	return c.UserID, nil
}

// Client is where a call came from, as far as it can be believed.
type Client struct {
	// IP is the address of the client; empty when it is not known.
	IP string
	// UserAgent is what the client says of itself, at most 256 bytes.
	UserAgent string
}

// Ended reports whether the session that a token belongs to has ended: by itself, or
// with all others of an older credential epoch (ADR 0044). A token that tells no epoch is
// held to the time of its login instead. Tokens tell seconds, so that one of the very
// second in which the sessions ended does not count either.
func (c Caller) Ended(claims Claims) bool {
	if claims.SessionID != "" && slices.Contains(c.EndedSessions, claims.SessionID) {
		return true
	}
	kept := claims.SessionID != "" && slices.Contains(c.KeptSessions, claims.SessionID)
	return c.older(claims) && !kept
}

// older reports whether a token was given before the user's sessions ended.
func (c Caller) older(claims Claims) bool {
	if claims.HasEpoch {
		return claims.Epoch < c.CredentialEpoch
	}
	return !c.SessionsSince.IsZero() && !claims.AuthTime.After(c.SessionsSince)
}

// Call is who makes a call and what they may do in it, as the interceptor chain finds
// out step by step.
type Call struct {
	// Client is where the call came from; zero when nobody knows.
	Client Client
	// Token is the caller's access token, for the identity provider that gave it;
	// empty when there is none.
	Token string
	// Caller is who calls; the zero Caller is anonymous.
	Caller Caller
	// Scope is where the caller may do what the RPC does; nil lets nothing through.
	Scope Scope
}

type callKey struct{}

// WithCall returns a context that carries the call. The chain completes it before the
// handler runs; nothing changes it afterwards.
func WithCall(ctx context.Context, c *Call) context.Context {
	return context.WithValue(ctx, callKey{}, c)
}

func callFrom(ctx context.Context) Call {
	if c, ok := ctx.Value(callKey{}).(*Call); ok {
		return *c
	}
	return Call{}
}

// With returns a context of the same call by another caller.
func With(ctx context.Context, caller Caller) context.Context {
	c := callFrom(ctx)
	c.Caller = caller
	return WithCall(ctx, &c)
}

// From returns the caller of the context; the zero Caller when there is none.
func From(ctx context.Context) Caller { return callFrom(ctx).Caller }

// ScopeFrom returns the scope of the context; nil when there is none, which
// lets nothing through.
func ScopeFrom(ctx context.Context) Scope { return callFrom(ctx).Scope }

// ClientFrom returns where the call came from; zero when nobody knows.
func ClientFrom(ctx context.Context) Client { return callFrom(ctx).Client }

// TokenFrom returns the caller's access token; empty when there is none.
func TokenFrom(ctx context.Context) string { return callFrom(ctx).Token }
