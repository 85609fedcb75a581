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
)

// SetupTotp makes the secret of a second factor, for who knows the password: the pool
// gives it for the tokens of a login with that password, which ends at once.
func (p *Provider) SetupTotp(ctx context.Context, userID, password string) (secret, uri string, err error) {
	u, err := p.user(ctx, userID)
	if err != nil {
		return "", "", err
	}
	limits := identity.LoginLimits(u.Email, identity.ClientIP(ctx))
	if err := p.limits.Attempt(ctx, limits...); err != nil {
		return "", "", err
	}
	login, err := p.byPassword(ctx, u.Email, password)
	if err != nil {
		return "", "", failure(enrolling, err)
	}
	if err := p.limits.Refund(ctx, limits...); err != nil {
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
// codes.
func (p *Provider) VerifyTotp(ctx context.Context, userID, code string) ([]string, error) {
	_, err := p.factor(ctx, userID, code, false)
	if err != nil {
		return nil, err
	}
	return nil, p.prefer(ctx, true)
}

// DisableTotp turns the second factor off with a code of it.
func (p *Provider) DisableTotp(ctx context.Context, userID, code string) error {
	u, err := p.factor(ctx, userID, code, true)
	if err != nil {
		return err
	}
	if err := p.prefer(ctx, false); err != nil {
		return err
	}
	return p.Store.DB().InTx(ctx, nil, func(tx *pg.Tx) error {
		return p.Mail.Queue(ctx, tx, u.Email, identity.FactorOffSubject, identity.FactorOffText)
	})
}

// factor checks a code of a second factor that is on, or not yet.
func (p *Provider) factor(ctx context.Context, userID, code string, on bool) (*account.User, error) {
	u, err := p.user(ctx, userID)
	if err != nil {
		return nil, err
	}
	limit := identity.LimitTotp.By(userID)
	if err := p.limits.Attempt(ctx, limit); err != nil {
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
	return u, p.limits.Refund(ctx, limit)
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
