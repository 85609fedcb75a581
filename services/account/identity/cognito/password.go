package cognito

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/aws"
	idp "github.com/aws/aws-sdk-go-v2/service/cognitoidentityprovider"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/auth"
	"github.com/turumba/turumba/kit/pg"
	account "github.com/turumba/turumba/services/account"
	"github.com/turumba/turumba/services/account/identity"
	"github.com/turumba/turumba/services/account/postgres"
)

// Forgot has the pool mail a code for Reset, if the address is a user's.
func (p *Provider) Forgot(ctx context.Context, email string) error {
	email = account.NormalEmail(email)
	if _, err := p.limits.AttemptAny(ctx, identity.ForgotLimits(ctx, email)); err != nil {
		return err
	}
	_, err := p.cognito.ForgotPassword(ctx, &idp.ForgotPasswordInput{ClientId: &p.ClientID, SecretHash: p.secretHash(email), Username: &email})
	return failure(mailing, err)
}

// Reset sets a new password with the code of the mail and ends every session.
func (p *Provider) Reset(ctx context.Context, email, code, password string) error {
	email = account.NormalEmail(email)
	if err := account.CheckPassword("new_password", password, email); err != nil {
		return err
	}
	err := p.limits.GuessAny(ctx, identity.ResetLimits(ctx, email), func() error {
		_, err := p.cognito.ConfirmForgotPassword(ctx, &idp.ConfirmForgotPasswordInput{
			ClientId: &p.ClientID, SecretHash: p.secretHash(email), Username: &email, ConfirmationCode: &code, Password: &password,
		})
		return failure(resetting, err)
	})
	if err != nil {
		return err
	}
	userID, err := p.Store.UserIDByEmail(ctx, email)
	if err == nil {
		err = p.changed(ctx, userID, email)
	} else if apierr.HasReason(err, errorv1.Reason_REASON_NOT_FOUND) {
		p.signOutSoon(ctx, email) // of the pool, but not here yet
		err = nil
	}
	return err
}

// Change sets a new password for who knows the old one. The pool cannot keep one
// session: all end, the caller's too.
func (p *Provider) Change(ctx context.Context, userID, _, current, password string) error {
	u, err := p.user(ctx, userID)
	if err != nil {
		return err
	}
	if err := account.CheckPassword("new_password", password, u.Email); err != nil {
		return err
	}
	err = p.limits.Guess(ctx, []postgres.Limit{identity.LimitPassword.By(identity.OfUser(u.ID))}, func() error {
		_, err := p.cognito.ChangePassword(ctx, &idp.ChangePasswordInput{
			AccessToken: aws.String(auth.TokenFrom(ctx)), PreviousPassword: &current, ProposedPassword: &password,
		})
		return failure(changing, err)
	})
	if err != nil {
		return err
	}
	return p.changed(ctx, u.ID, u.Email)
}

// changed follows a new password: every session ends, and the person is told.
func (p *Provider) changed(ctx context.Context, userID, email string) error {
	err := p.Store.DB().InTx(ctx, nil, func(tx *pg.Tx) error {
		if err := p.endAll(ctx, tx, userID); err != nil {
			return err
		}
		return p.Mail.Queue(ctx, tx, email, identity.PasswordLetter())
	})
	if err != nil {
		return err
	}
	p.Changed()
	p.signOutSoon(ctx, email)
	return nil
}
