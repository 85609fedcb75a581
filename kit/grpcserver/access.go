package grpcserver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	optionsv1 "github.com/turumba/turumba/gen/turumba/options/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/auth"
)

// authenticate finds out who calls: a service for internal RPCs, a user by
// token for the others, nobody for public ones.
func (s *Server) authenticate(ctx context.Context, c *call) (context.Context, error) {
	switch c.rule.auth.GetRule().(type) {
	case *optionsv1.Auth_Public:
		return ctx, nil
	case *optionsv1.Auth_Internal:
		return ctx, s.authenticateService(ctx, c)
	}
	values := c.md.Get("authorization")
	if len(values) != 1 {
		return nil, apierr.Unauthenticated(errors.New("expected one authorization header"))
	}
	scheme, token, ok := strings.Cut(values[0], " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") || token == "" {
		return nil, apierr.Unauthenticated(errors.New("expected a bearer token"))
	}
	claims, err := s.cfg.Verifier.Verify(ctx, token)
	if err != nil {
		return nil, err
	}
	c.claims, c.Token = claims, token
	return ctx, nil
}

// authenticateService accepts only a proven service identity; a user token
// changes nothing here.
func (s *Server) authenticateService(ctx context.Context, c *call) error {
	name, err := s.serviceOf(ctx, c.md)
	if err != nil {
		return err
	}
	c.Caller = auth.Caller{Service: name}
	return nil
}

// enrich turns the verified token into a caller with memberships. A subject
// without a local user is a caller without any.
func (s *Server) enrich(ctx context.Context, c *call) (context.Context, error) {
	claims := c.claims
	if c.Token == "" {
		return ctx, nil
	}
	caller, err := s.cfg.Context.Context(ctx, claims)
	switch {
	case apierr.HasReason(err, errorv1.Reason_REASON_NOT_FOUND):
		caller = auth.Caller{Subject: claims.Subject, Issuer: claims.Issuer, Groups: claims.Groups, TokenID: claims.TokenID, SessionID: claims.SessionID, TokenExpiry: claims.Expiry}
	case apierr.HasReason(err, errorv1.Reason_REASON_UNAUTHENTICATED):
		return nil, err
	case err != nil:
		return nil, apierr.New(errorv1.Reason_REASON_UNAVAILABLE, "permissions cannot be looked up now").Wrap(err)
	case caller.Ended(claims):
		return nil, apierr.Unauthenticated(errors.New("the session has ended"))
	}
	c.Caller = caller
	return ctx, nil
}

// authorise holds the caller to the RPC's rule. The permission becomes the
// scope; an empty scope is denied before anything is looked up.
func authorise(ctx context.Context, c *call) (context.Context, error) {
	switch rule := c.rule.auth.GetRule().(type) {
	case *optionsv1.Auth_Public, *optionsv1.Auth_Authenticated:
		return ctx, nil
	case *optionsv1.Auth_Permission:
		scope := c.Caller.Scope(rule.Permission)
		if len(scope) == 0 {
			return nil, denied()
		}
		scope = slices.DeleteFunc(scope, func(id string) bool {
			m, _ := c.Caller.Membership(id)
			return !open(m.AccountStatus, c.rule)
		})
		if len(scope) == 0 {
			return nil, auth.ErrSuspended
		}
		c.Scope = scope
		return ctx, nil
	case *optionsv1.Auth_Internal:
		if !slices.Contains(rule.Internal.GetCallers(), c.Caller.Service) {
			return nil, denied().WithMeta(metaIdentity, fmt.Sprintf("%q may not call this RPC", c.Caller.Service))
		}
		return ctx, nil
	case *optionsv1.Auth_OperatorGroup:
		if !slices.Contains(c.Caller.Groups, rule.OperatorGroup) {
			return nil, denied()
		}
		return ctx, nil
	default:
		return nil, denied()
	}
}

// open reports whether an account in this state may make the call: a closed one
// only reads, a suspended one neither sends nor has us mail anybody.
func open(status string, r *rule) bool {
	switch status {
	case auth.AccountClosed:
		return r.reads
	case auth.AccountSuspended:
		return !r.auth.GetSends() && !r.auth.GetSendsMail()
	}
	return true
}

func denied() *apierr.Error {
	return apierr.New(errorv1.Reason_REASON_PERMISSION_DENIED, "your role does not allow it")
}
