package cognito

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	idp "github.com/aws/aws-sdk-go-v2/service/cognitoidentityprovider"
	"github.com/aws/aws-sdk-go-v2/service/cognitoidentityprovider/types"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/auth"
	"github.com/turumba/turumba/kit/pg"
	account "github.com/turumba/turumba/services/account"
	"github.com/turumba/turumba/services/account/identity"
)

// Login checks a password in the pool and gives its tokens, or the session of a
// challenge.
func (p *Provider) Login(ctx context.Context, email, password string) (identity.Tokens, error) {
	email = account.NormalEmail(email)
	limits := identity.LoginLimits(email, identity.ClientIP(ctx))
	if err := p.limits.Attempt(ctx, limits...); err != nil {
		return identity.Tokens{}, err
	}
	out, err := p.byPassword(ctx, email, password)
	if err != nil {
		return identity.Tokens{}, failure(loggingIn, err)
	}
	if err := p.limits.Refund(ctx, limits...); err != nil {
		return identity.Tokens{}, err
	}
	if out.AuthenticationResult != nil {
		return p.enter(ctx, out.AuthenticationResult, "", identity.ErrCredentials)
	}
	if out.ChallengeName != types.ChallengeNameTypeSoftwareTokenMfa {
		return identity.Tokens{}, identity.ErrUnsupported.Wrap(fmt.Errorf("the pool asks for %s", out.ChallengeName))
	}
	username := out.ChallengeParameters["USER_ID_FOR_SRP"]
	if username == "" {
		username = email
	}
	return identity.Tokens{Session: join(username, aws.ToString(out.Session))}, nil
}

func (p *Provider) byPassword(ctx context.Context, email, password string) (*idp.InitiateAuthOutput, error) {
	return p.cognito.InitiateAuth(ctx, &idp.InitiateAuthInput{
		ClientId: &p.ClientID, AuthFlow: types.AuthFlowTypeUserPasswordAuth,
		AuthParameters: p.parameters(email, map[string]string{"USERNAME": email, "PASSWORD": password}),
	})
}

// Cognito asks for the username again with a session, and for the proof of the client
// with a refresh token. We keep neither: both travel as "username:what Cognito gave".
func join(username, given string) string { return username + ":" + given }

func split(joined string) (username, given string) {
	i := strings.LastIndexByte(joined, ':')
	return joined[:max(i, 0)], joined[i+1:]
}

// Answer ends a login with a code of the second factor.
func (p *Provider) Answer(ctx context.Context, session, code string) (identity.Tokens, error) {
	username, given := split(session)
	limit := identity.LimitTotp.By(username)
	if err := p.limits.Attempt(ctx, limit); err != nil {
		return identity.Tokens{}, err
	}
	out, err := p.cognito.RespondToAuthChallenge(ctx, &idp.RespondToAuthChallengeInput{
		ClientId: &p.ClientID, ChallengeName: types.ChallengeNameTypeSoftwareTokenMfa, Session: &given,
		ChallengeResponses: p.parameters(username, map[string]string{"USERNAME": username, "SOFTWARE_TOKEN_MFA_CODE": code}),
	})
	if err != nil {
		return identity.Tokens{}, failure(answering, err)
	}
	if out.AuthenticationResult == nil {
		return identity.Tokens{}, identity.ErrUnsupported.Wrap(fmt.Errorf("the pool asks for %s", out.ChallengeName))
	}
	if err := p.limits.Refund(ctx, limit); err != nil {
		return identity.Tokens{}, err
	}
	return p.enter(ctx, out.AuthenticationResult, "", identity.ErrSession)
}

// enter gives the tokens of a login to who may have them; others are refused. refresh
// is the refresh token that they have already.
func (p *Provider) enter(ctx context.Context, r *types.AuthenticationResultType, refresh string, refused error) (identity.Tokens, error) {
	access, err := claimsOf(aws.ToString(r.AccessToken))
	if err != nil {
		return identity.Tokens{}, err
	}
	active, err := p.settle(ctx, access.Subject, aws.ToString(r.IdToken))
	if err == nil && !active {
		err = refused
	}
	if err != nil {
		return identity.Tokens{}, err
	}
	if r.RefreshToken != nil {
		refresh = *r.RefreshToken
	}
	return identity.Tokens{
		Access: *r.AccessToken, ID: aws.ToString(r.IdToken), Refresh: join(access.Username, refresh),
		ExpiresIn: int32(max(0, access.Expiry-p.Clock.Now().Unix())),
	}, nil
}

// settle reports whether a user may come in. For one who is not here yet, it creates
// what the address registered, if anything: the confirmation broke off half-way, or
// the person was in the pool before. Only the pool's word that the address is theirs
// counts.
func (p *Provider) settle(ctx context.Context, subject, idToken string) (active bool, err error) {
	u, err := p.Store.UserBySubject(ctx, p.Issuer, subject)
	if err == nil {
		return u.IsActive, nil
	}
	if !apierr.HasReason(err, errorv1.Reason_REASON_NOT_FOUND) {
		return false, err
	}
	id, err := claimsOf(idToken)
	if err != nil {
		return false, err
	}
	if id.Subject != subject || !id.EmailVerified {
		return true, nil
	}
	_, err = p.finish(ctx, account.NormalEmail(id.Email), subject, []byte{})
	if errors.Is(err, account.ErrInvalidCode) {
		return true, nil // nothing was registered: a user without accounts
	}
	return err == nil, err
}

// claims are what we read of the tokens that Cognito hands out. They came from Cognito
// itself, so nobody verifies them here.
type claims struct {
	Subject       string `json:"sub"`
	Username      string `json:"username"`
	Session       string `json:"origin_jti"`
	Email         string `json:"email"`
	EmailVerified bool   `json:"email_verified"`
	Expiry        int64  `json:"exp"`
}

func claimsOf(token string) (claims, error) {
	var c claims
	segments := strings.Split(token, ".")
	if len(segments) != 3 {
		return c, errors.New("cognito: the answer has no token")
	}
	payload, err := base64.RawURLEncoding.DecodeString(segments[1])
	if err == nil {
		err = json.Unmarshal(payload, &c)
	}
	if err != nil {
		return c, fmt.Errorf("cognito: read a token: %w", err)
	}
	return c, nil
}

// Refresh gives new tokens; the refresh token stays, unless the pool gives another.
func (p *Provider) Refresh(ctx context.Context, token string) (identity.Tokens, error) {
	r, err := p.refresh(ctx, token)
	if err != nil {
		return identity.Tokens{}, err
	}
	_, given := split(token)
	return p.enter(ctx, r, given, identity.ErrRefresh)
}

func (p *Provider) refresh(ctx context.Context, token string) (*types.AuthenticationResultType, error) {
	username, given := split(token)
	out, err := p.cognito.InitiateAuth(ctx, &idp.InitiateAuthInput{
		ClientId: &p.ClientID, AuthFlow: types.AuthFlowTypeRefreshTokenAuth,
		AuthParameters: p.parameters(username, map[string]string{"REFRESH_TOKEN": given}),
	})
	if err != nil {
		return nil, failure(refreshing, err)
	}
	if out.AuthenticationResult == nil {
		return nil, identity.ErrUnsupported.Wrap(fmt.Errorf("the pool asks for %s", out.ChallengeName))
	}
	return out.AuthenticationResult, nil
}

// Logout revokes a refresh token and ends its session; an unknown one changes nothing.
// The session is read from tokens that the refresh token gives a last time, so nobody
// can end a session whose refresh token they lack.
func (p *Provider) Logout(ctx context.Context, token string) error {
	r, err := p.refresh(ctx, token)
	if errors.Is(err, identity.ErrRefresh) {
		return nil
	}
	if err != nil {
		return err
	}
	access, err := claimsOf(aws.ToString(r.AccessToken))
	if err != nil {
		return err
	}
	if err := p.endSession(ctx, access); err != nil {
		return err
	}
	_, given := split(token)
	return p.revoke(ctx, given)
}

func (p *Provider) revoke(ctx context.Context, refreshToken string) error {
	in := &idp.RevokeTokenInput{ClientId: &p.ClientID, Token: &refreshToken}
	if p.ClientSecret != "" {
		in.ClientSecret = aws.String(p.ClientSecret.Reveal())
	}
	_, err := p.cognito.RevokeToken(ctx, in)
	return failure(revoking, err)
}

// endSession makes the access tokens of a session count no more.
func (p *Provider) endSession(ctx context.Context, c claims) error {
	u, err := p.Store.UserBySubject(ctx, p.Issuer, c.Subject)
	if apierr.HasReason(err, errorv1.Reason_REASON_NOT_FOUND) || (err == nil && c.Session == "") {
		return nil
	}
	if err != nil {
		return err
	}
	err = p.Store.DB().InTx(ctx, nil, func(tx *pg.Tx) error { return p.Store.EndSession(ctx, tx, u.ID, c.Session) })
	p.Changed()
	return err
}

// LogoutEverywhere ends every session of a user, here and in the pool.
func (p *Provider) LogoutEverywhere(ctx context.Context, userID string) error {
	u, err := p.user(ctx, userID)
	if err != nil {
		return err
	}
	if err := p.Store.DB().InTx(ctx, nil, func(tx *pg.Tx) error { return p.endAll(ctx, tx, u.ID) }); err != nil {
		return err
	}
	p.Changed()
	return p.signOut(ctx, u.Email)
}

// endAll makes no access token of a user count any more. The caller's own session is
// named as well: it may have begun in this very second.
func (p *Provider) endAll(ctx context.Context, tx *pg.Tx, userID string) error {
	if caller := auth.From(ctx); caller.UserID == userID && caller.SessionID != "" {
		if err := p.Store.EndSession(ctx, tx, userID, caller.SessionID); err != nil {
			return err
		}
	}
	return p.Store.RevokeSessions(ctx, tx, userID, "")
}

// signOut revokes every refresh token of a user in the pool.
func (p *Provider) signOut(ctx context.Context, email string) error {
	_, err := p.cognito.AdminUserGlobalSignOut(ctx, &idp.AdminUserGlobalSignOutInput{UserPoolId: &p.UserPoolID, Username: &email})
	return failure(operating, err)
}

// signOutSoon is signOut after something that cannot be undone. Sessions that began
// before count no more here, whatever the pool still gives for them.
func (p *Provider) signOutSoon(ctx context.Context, email string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if err := p.signOut(ctx, email); err != nil {
		p.Logger.WarnContext(ctx, "the user pool did not sign a user out", "err", err)
	}
}
