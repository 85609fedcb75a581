package cognito

import (
	"context"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	idp "github.com/aws/aws-sdk-go-v2/service/cognitoidentityprovider"
	"github.com/aws/aws-sdk-go-v2/service/cognitoidentityprovider/types"

	"github.com/turumba/turumba/kit/auth"
	"github.com/turumba/turumba/kit/pg"
	account "github.com/turumba/turumba/services/account"
	"github.com/turumba/turumba/services/account/identity"
	"github.com/turumba/turumba/services/account/postgres"
)

// SetupTotp makes the secret of a second factor, for who knows the password: the pool
// gives it for the tokens of a login with that password, which ends at once.
func (p *Provider) SetupTotp(ctx context.Context, userID, password string) (secret, uri string, err error) {
	u, err := p.user(ctx, userID)
	if err != nil {
		return "", "", err
	}
	var login *idp.InitiateAuthOutput
	err = p.limits.Guess(ctx, []postgres.Limit{identity.LimitPassword.By(identity.OfUser(u.ID))}, func() (err error) {
		login, err = p.byPassword(ctx, u.Email, password)
		return failure(enrolling, err)
	})
	if err != nil {
		return "", "", err
	}
	if login.AuthenticationResult == nil {
		return "", "", identity.ErrMFAOn
	}
	out, err := p.cognito.AssociateSoftwareToken(ctx, &idp.AssociateSoftwareTokenInput{AccessToken: login.AuthenticationResult.AccessToken})
	if err != nil {
		return "", "", failure(enrolling, err)
	}
	if err := p.revoke(ctx, aws.ToString(login.AuthenticationResult.RefreshToken)); err != nil {
		return "", "", err
	}
	secret = aws.ToString(out.SecretCode)
	return secret, identity.TotpURI(u.Email, secret), nil
}

// VerifyTotp turns the second factor on with its first code. The pool has no recovery
// codes. Other sessions, whose logins did without it, end.
func (p *Provider) VerifyTotp(ctx context.Context, userID, code string) ([]string, error) {
	if _, err := p.factor(ctx, userID, code, false); err != nil {
		return nil, err
	}
	if err := p.prefer(ctx, true); err != nil {
		return nil, err
	}
	return nil, p.factorChanged(ctx, userID, func(*pg.Tx) error { return nil })
}

// DisableTotp turns the second factor off with a code of it. Other sessions end.
func (p *Provider) DisableTotp(ctx context.Context, userID, code string) error {
	u, err := p.factor(ctx, userID, code, true)
	if err != nil {
		return err
	}
	if err := p.prefer(ctx, false); err != nil {
		return err
	}
	return p.factorChanged(ctx, userID, func(tx *pg.Tx) error {
		return p.Mail.Queue(ctx, tx, u.Email, identity.FactorOffLetter())
	})
}

// factorChanged raises the user's credential epoch; the caller's session goes on.
func (p *Provider) factorChanged(ctx context.Context, userID string, also func(*pg.Tx) error) error {
	err := p.Store.DB().InTx(ctx, nil, func(tx *pg.Tx) error {
		h, err := p.Store.HoldAny(ctx, tx, userID)
		if err != nil {
			return err
		}
		keep, err := p.here(ctx, h)
		if err != nil {
			return err
		}
		if err := h.Next(ctx, keep); err != nil {
			return err
		}
		return also(tx)
	})
	p.Changed()
	return err
}

// here is the caller's session, noted if it was not known; empty for none.
func (p *Provider) here(ctx context.Context, h *postgres.Held) (id string, err error) {
	access, err := claimsOf(auth.TokenFrom(ctx))
	if err != nil || access.Session == "" {
		return "", err
	}
	x, err := h.Session(ctx, access.Session)
	if err == nil && x == nil && h.Admits(access.session().BeganAt) {
		err = h.Begin(ctx, access.session())
	}
	return access.Session, err
}

// factor checks a code of a second factor that is on, or not yet.
func (p *Provider) factor(ctx context.Context, userID, code string, on bool) (*account.User, error) {
	u, err := p.user(ctx, userID)
	if err != nil {
		return nil, err
	}
	limits := identity.FactorLimits(ctx, userID, true)
	if err := p.limits.Attempt(ctx, limits...); err != nil {
		return nil, err
	}
	found, err := p.find(ctx, u.Email)
	if err != nil {
		return nil, err
	}
	switch has := found != nil && slices.Contains(found.UserMFASettingList, identity.Challenge); {
	case has && !on:
		return nil, identity.ErrMFAOn
	case !has && on:
		return nil, identity.ErrMFAOff
	}
	out, err := p.cognito.VerifySoftwareToken(ctx, &idp.VerifySoftwareTokenInput{AccessToken: aws.String(auth.TokenFrom(ctx)), UserCode: &code})
	if err != nil {
		return nil, failure(proving, err)
	}
	if out.Status != types.VerifySoftwareTokenResponseTypeSuccess {
		return nil, account.ErrInvalidCode
	}
	return u, p.limits.Refund(ctx, limits...)
}

// prefer makes the pool ask for the second factor, or not.
func (p *Provider) prefer(ctx context.Context, on bool) error {
	_, err := p.cognito.SetUserMFAPreference(ctx, &idp.SetUserMFAPreferenceInput{
		AccessToken: aws.String(auth.TokenFrom(ctx)), SoftwareTokenMfaSettings: &types.SoftwareTokenMfaSettingsType{Enabled: on, PreferredMfa: on},
	})
	return failure(proving, err)
}

// RenewRecoveryCodes answers PROVIDER_UNSUPPORTED: the pool has none.
func (p *Provider) RenewRecoveryCodes(context.Context, string, string) ([]string, error) {
	return nil, identity.ErrUnsupported
}
