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
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/vault"
	account "github.com/turumba/turumba/services/account"
	"github.com/turumba/turumba/services/account/identity"
	"github.com/turumba/turumba/services/account/postgres"
)

// Login checks a password in the pool and gives its tokens, or the session of a
// challenge.
func (p *Provider) Login(ctx context.Context, email, password string) (identity.Tokens, error) {
	email = account.NormalEmail(email)
	var known before
	var out *idp.InitiateAuthOutput
	err := p.limits.Guess(ctx, identity.LoginLimits(ctx, email), func() (err error) {
		if known, err = p.known(ctx, email); err != nil {
			return err
		}
		out, err = p.byPassword(ctx, email, password)
		return failure(loggingIn, err)
	})
	if err != nil {
		return identity.Tokens{}, err
	}
	if out.AuthenticationResult != nil {
		t, err := p.enter(ctx, out.AuthenticationResult, "", identity.ErrCredentials, known.still)
		t.Address = email
		return t, err
	}
	if out.ChallengeName != types.ChallengeNameTypeSoftwareTokenMfa {
		return identity.Tokens{}, identity.ErrUnsupported.Wrap(fmt.Errorf("the pool asks for %s", out.ChallengeName))
	}
	username := out.ChallengeParameters["USER_ID_FOR_SRP"]
	if username == "" {
		username = email
	}
	session, err := p.sealChallenge(challenge{Username: username, Address: email, Given: aws.ToString(out.Session), Until: p.Clock.Now().Add(challengeLife)})
	if err != nil {
		return identity.Tokens{}, err
	}
	return identity.Tokens{Session: session}, p.challenge(ctx, known, session)
}

// challenge is a login that waits for the second factor, as its session tells. The session
// is sealed: nobody who was given none can name a user in one, and use up their attempts.
type challenge struct {
	Username, Address string
	Given             string // the session of the pool
	Until             time.Time
}

var challengeAAD = vault.AAD{Account: "platform", Resource: "challenge", Field: "session", Version: 1}

func (p *Provider) sealChallenge(c challenge) (session string, err error) {
	plain, err := json.Marshal(c)
	if err != nil {
		return "", fmt.Errorf("write a challenge: %w", err)
	}
	sealed, err := p.Vault.Seal(challengeAAD, plain)
	if err != nil {
		return "", fmt.Errorf("seal a challenge: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(sealed), nil
}

// openChallenge reads a session of sealChallenge; ErrSession for any other.
func (p *Provider) openChallenge(session string) (c challenge, err error) {
	sealed, err := base64.RawURLEncoding.DecodeString(session)
	if err != nil {
		return c, identity.ErrSession
	}
	plain, err := p.Vault.Open(challengeAAD, sealed)
	if err != nil || json.Unmarshal(plain, &c) != nil || !p.Clock.Now().Before(c.Until) {
		return challenge{}, identity.ErrSession
	}
	return c, nil
}

// before is a user of ours as they were before the pool was asked; nil without one.
type before struct {
	*postgres.Login
	p *Provider
}

func (p *Provider) known(ctx context.Context, email string) (before, error) {
	l, err := p.Store.Login(ctx, email)
	if apierr.HasReason(err, errorv1.Reason_REASON_NOT_FOUND) || (err == nil && l.Pending) {
		l, err = nil, nil
	}
	return before{l, p}, err
}

// still holds the user of a login that the pool let in, if the credentials are those of
// before it was asked. Who was not known by the address then is held to the time of the
// login.
func (b before) still(ctx context.Context, tx *pg.Tx, u *account.User, access claims) (*postgres.Held, error) {
	if b.Login != nil && b.UserID == u.ID {
		return b.p.Store.Hold(ctx, tx, u.ID, b.Epoch)
	}
	h, err := b.p.Store.HoldAny(ctx, tx, u.ID)
	if err == nil && !h.Admits(access.session().BeganAt) {
		err = postgres.ErrStale
	}
	return h, err
}

// challenge binds a login that waits for the second factor to the credentials that it
// began on.
func (p *Provider) challenge(ctx context.Context, b before, session string) error {
	if b.Login == nil {
		return nil
	}
	err := p.Store.DB().InTx(ctx, nil, func(tx *pg.Tx) error {
		h, err := p.Store.Hold(ctx, tx, b.UserID, b.Epoch)
		if err != nil {
			return err
		}
		return h.SaveChallenge(ctx, identity.HashToken(session), tx.Now.Add(challengeLife))
	})
	if errors.Is(err, postgres.ErrStale) {
		err = identity.ErrCredentials
	}
	return err
}

func (p *Provider) byPassword(ctx context.Context, email, password string) (*idp.InitiateAuthOutput, error) {
	return p.cognito.InitiateAuth(ctx, &idp.InitiateAuthInput{
		ClientId: &p.ClientID, AuthFlow: types.AuthFlowTypeUserPasswordAuth,
		AuthParameters: p.parameters(email, map[string]string{"USERNAME": email, "PASSWORD": password}),
	})
}

// Cognito asks for the username again with a refresh token, for the proof of the client.
// We keep none: it travels as "username:what Cognito gave".
func join(username, given string) string { return username + ":" + given }

func split(joined string) (username, given string) {
	i := strings.LastIndexByte(joined, ':')
	return joined[:max(i, 0)], joined[i+1:]
}

// Answer ends a login with a code of the second factor.
func (p *Provider) Answer(ctx context.Context, session, code string) (identity.Tokens, error) {
	c, err := p.openChallenge(session)
	if err != nil {
		return identity.Tokens{}, err
	}
	known, err := p.challenged(ctx, session)
	if err != nil {
		return identity.Tokens{}, err
	}
	var out *idp.RespondToAuthChallengeOutput
	// By the session of the pool: ours can be written in many ways.
	err = p.limits.Answer(ctx, identity.OfToken(c.Given), identity.OfAddress(c.Address), c.Address, true, func() (err error) {
		out, err = p.cognito.RespondToAuthChallenge(ctx, &idp.RespondToAuthChallengeInput{
			ClientId: &p.ClientID, ChallengeName: types.ChallengeNameTypeSoftwareTokenMfa, Session: &c.Given,
			ChallengeResponses: p.parameters(c.Username, map[string]string{"USERNAME": c.Username, "SOFTWARE_TOKEN_MFA_CODE": code}),
		})
		return failure(answering, err)
	})
	if err != nil {
		return identity.Tokens{}, err
	}
	if out.AuthenticationResult == nil {
		return identity.Tokens{}, identity.ErrUnsupported.Wrap(fmt.Errorf("the pool asks for %s", out.ChallengeName))
	}
	t, err := p.enter(ctx, out.AuthenticationResult, "", identity.ErrSession, known.still)
	t.Address = c.Address
	return t, err
}

// challenged is the user of a login that waits for the second factor, as they were when
// it began.
func (p *Provider) challenged(ctx context.Context, session string) (before, error) {
	c, err := p.Store.Challenge(ctx, identity.HashToken(session), p.Clock.Now())
	if apierr.HasReason(err, errorv1.Reason_REASON_NOT_FOUND) {
		return before{p: p}, nil
	}
	if err != nil {
		return before{}, err
	}
	return before{&postgres.Login{UserID: c.UserID, Epoch: c.Epoch}, p}, nil
}

// holds locks the user whom the pool let in, if they may come in.
type holds func(ctx context.Context, tx *pg.Tx, u *account.User, access claims) (*postgres.Held, error)

// challengeLife is the most that a pool lets a login wait for the second factor.
const challengeLife = 15 * time.Minute

// enter gives the tokens of a login to who may have them; others are refused. refresh
// is the refresh token that they have already.
func (p *Provider) enter(ctx context.Context, r *types.AuthenticationResultType, refresh string, refused error, hold holds) (identity.Tokens, error) {
	access, err := claimsOf(aws.ToString(r.AccessToken))
	if err != nil {
		return identity.Tokens{}, err
	}
	u, err := p.settle(ctx, access.Subject, aws.ToString(r.IdToken))
	if err == nil && u != nil {
		err = p.admit(ctx, u, access, hold)
	}
	if errors.Is(err, postgres.ErrStale) {
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

// admit notes the session of a login on the user's credential epoch; ErrStale when it has
// ended, or the credentials changed since the login began.
func (p *Provider) admit(ctx context.Context, u *account.User, access claims, hold holds) error {
	return p.Store.DB().InTx(ctx, nil, func(tx *pg.Tx) error {
		h, err := hold(ctx, tx, u, access)
		if err != nil || access.Session == "" {
			return err
		}
		x, err := h.Session(ctx, access.Session)
		switch {
		case err != nil:
			return err
		case x == nil:
			if !h.Admits(access.session().BeganAt) {
				tx.OnCommit(p.Changed) // cached contexts do not know that this one counts
			}
			return h.Begin(ctx, access.session())
		case !h.Live(x):
			return postgres.ErrStale
		}
		return nil
	})
}

// goesOn holds the user of a session that is refreshed. One that is not known here, since
// somebody logged in at the pool itself, is held to the time of its login.
func (p *Provider) goesOn(ctx context.Context, tx *pg.Tx, u *account.User, access claims) (*postgres.Held, error) {
	h, err := p.Store.HoldAny(ctx, tx, u.ID)
	if err != nil {
		return nil, err
	}
	x, err := h.Session(ctx, access.Session)
	if err == nil && !h.Live(x) && (x != nil || !h.Admits(access.session().BeganAt)) {
		err = postgres.ErrStale
	}
	return h, err
}

// settle finds the user of a subject. For one who is not here yet, it creates what the
// address registered, if anything: the confirmation broke off half-way, or the person was
// in the pool before. Only the pool's word that the address is theirs counts. nil is
// somebody of whom nothing was registered: a user without accounts.
func (p *Provider) settle(ctx context.Context, subject, idToken string) (*account.User, error) {
	u, err := p.Store.UserBySubject(ctx, p.Issuer, subject)
	if !apierr.HasReason(err, errorv1.Reason_REASON_NOT_FOUND) {
		return u, err
	}
	id, err := claimsOf(idToken)
	if err != nil {
		return nil, err
	}
	if id.Subject != subject || !id.EmailVerified {
		return nil, nil
	}
	r, err := p.Store.RegistrationOf(ctx, account.NormalEmail(id.Email), subject)
	if err == nil {
		_, err = p.finish(ctx, r, subject, []byte{})
	}
	if errors.Is(err, account.ErrInvalidCode) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return p.Store.UserBySubject(ctx, p.Issuer, subject)
}

// claims are what we read of the tokens that Cognito hands out. They came from Cognito
// itself, so nobody verifies them here.
type claims struct {
	Subject       string `json:"sub"`
	Username      string `json:"username"`
	Session       string `json:"origin_jti"`
	Email         string `json:"email"`
	EmailVerified bool   `json:"email_verified"`
	AuthTime      int64  `json:"auth_time"`
	IssuedAt      int64  `json:"iat"`
	Expiry        int64  `json:"exp"`
}

// sessionLife is how long a session of the pool is remembered; its refresh tokens last as
// long as the pool is set to, 30 days unless somebody changed it.
const sessionLife = 400 * 24 * time.Hour

// session is the login that a token came from.
func (c claims) session() postgres.Session {
	began := time.Unix(c.AuthTime, 0)
	if c.AuthTime == 0 {
		began = time.Unix(c.IssuedAt, 0)
	}
	return postgres.Session{ID: c.Session, BeganAt: began, ExpiresAt: began.Add(sessionLife)}
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
	return p.enter(ctx, r, given, identity.ErrRefresh, p.goesOn)
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
	err = p.Store.DB().InTx(ctx, nil, func(tx *pg.Tx) error {
		h, err := p.Store.HoldAny(ctx, tx, u.ID)
		if err != nil {
			return err
		}
		return h.EndOther(ctx, c.session())
	})
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

// endAll makes no access token of a user count any more.
func (p *Provider) endAll(ctx context.Context, tx *pg.Tx, userID string) error {
	h, err := p.Store.HoldAny(ctx, tx, userID)
	if err != nil {
		return err
	}
	return h.Next(ctx, "")
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
