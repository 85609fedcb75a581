package cognito

import (
	"context"
	"crypto/subtle"
	"errors"

	"github.com/aws/aws-sdk-go-v2/aws"
	idp "github.com/aws/aws-sdk-go-v2/service/cognitoidentityprovider"
	"github.com/aws/aws-sdk-go-v2/service/cognitoidentityprovider/types"
	"google.golang.org/protobuf/proto"

	"github.com/turumba/turumba/kit/pg"
	account "github.com/turumba/turumba/services/account"
	"github.com/turumba/turumba/services/account/identity"
)

// Register signs the person up in the pool, which mails the code, and stores what is
// to be made once the address is verified. A known address gets a notice instead.
func (p *Provider) Register(ctx context.Context, r account.Registration, password string, respond proto.Message) error {
	r.Email = account.NormalEmail(r.Email)
	if err := account.CheckPassword("password", password, r.Email, r.FullName, r.AccountName); err != nil {
		return err
	}
	if err := p.limits.Attempt(ctx, identity.LimitMail.By(r.Email)); err != nil {
		return err
	}
	owner := "email:" + identity.Digest(r.Email)
	if err := p.Store.DB().Replay(ctx, owner); err != nil {
		return err // repeating the call must not make another user in the pool
	}
	inPool, err := p.signUp(ctx, r.Email, password)
	if err != nil {
		return err
	}
	return p.Store.DB().InTx(ctx, nil, func(tx *pg.Tx) error {
		if err := tx.Idempotent(ctx, owner); err != nil {
			return err
		}
		known, err := p.Store.UserExists(ctx, tx, r.Email)
		if err == nil && !known {
			// Somebody who was in the pool before finishes it by logging in.
			r.CodeHash, r.CodeExpires = []byte{}, tx.Now.Add(account.CodeLife)
			err = p.Store.SaveRegistration(ctx, tx, r)
		}
		if err == nil && (known || inPool) {
			err = p.Mail.Queue(ctx, tx, r.Email, identity.KnownSubject, identity.KnownText)
		}
		if err != nil {
			return err
		}
		return tx.Respond(ctx, respond)
	})
}

// signUp makes a user in the pool; inPool tells that there was one who had verified
// the address. One who had not gives way: nobody proved anything, and the password of
// the newest registration counts. Cognito is asked the same whoever is there.
func (p *Provider) signUp(ctx context.Context, email, password string) (inPool bool, err error) {
	found, err := p.find(ctx, email)
	if err != nil {
		return false, err
	}
	unconfirmed := found != nil && found.UserStatus == types.UserStatusTypeUnconfirmed
	if unconfirmed {
		_, err := p.cognito.AdminDeleteUser(ctx, &idp.AdminDeleteUserInput{UserPoolId: &p.UserPoolID, Username: &email})
		if err != nil && !is(err, userNotFound) {
			return false, failure(operating, err)
		}
	}
	_, err = p.cognito.SignUp(ctx, &idp.SignUpInput{
		ClientId: &p.ClientID, SecretHash: p.secretHash(email), Username: &email, Password: &password,
		UserAttributes: []types.AttributeType{{Name: aws.String("email"), Value: &email}},
	})
	if is(err, userExists) {
		return found != nil && !unconfirmed, nil
	}
	return false, failure(signingUp, err)
}

// find returns the user of an address in the pool; nil without one.
func (p *Provider) find(ctx context.Context, email string) (*idp.AdminGetUserOutput, error) {
	out, err := p.cognito.AdminGetUser(ctx, &idp.AdminGetUserInput{UserPoolId: &p.UserPoolID, Username: &email})
	if is(err, userNotFound) {
		return nil, nil
	}
	return out, failure(operating, err)
}

// Verify has the pool check the code and creates what was registered. The same good
// code gives the same answer again.
func (p *Provider) Verify(ctx context.Context, email, code string) (*account.Registration, error) {
	email = account.NormalEmail(email)
	if _, err := p.Store.RegisteringWith(ctx, email); err != nil {
		return nil, err // an invitation that is over must not use up the code
	}
	_, err := p.cognito.ConfirmSignUp(ctx, &idp.ConfirmSignUpInput{
		ClientId: &p.ClientID, SecretHash: p.secretHash(email), Username: &email, ConfirmationCode: &code,
	})
	if err != nil {
		return p.verified(ctx, email, code, failure(confirming, err))
	}
	found, err := p.find(ctx, email)
	if err != nil {
		return nil, err
	}
	subject := subjectOf(found, email)
	if subject == "" {
		return nil, account.ErrInvalidCode // the code was not for this address
	}
	return p.finish(ctx, email, subject, identity.HashCode(email, code))
}

// subjectOf is the sub of a user of the pool who has the address; empty for others.
func subjectOf(u *idp.AdminGetUserOutput, email string) string {
	if u == nil {
		return ""
	}
	attributes := map[string]string{}
	for _, a := range u.UserAttributes {
		attributes[aws.ToString(a.Name)] = aws.ToString(a.Value)
	}
	if account.NormalEmail(attributes["email"]) != email {
		return ""
	}
	return attributes["sub"]
}

// verified answers the code that finished a registration before; else cause. Wrong
// codes count.
func (p *Provider) verified(ctx context.Context, email, code string, cause error) (*account.Registration, error) {
	if !errors.Is(cause, account.ErrInvalidCode) {
		return nil, cause
	}
	var r *account.Registration
	err := p.Store.DB().InTx(ctx, nil, func(tx *pg.Tx) (err error) {
		if r, err = p.Store.Registration(ctx, tx, email); err != nil {
			return err
		}
		same := subtle.ConstantTimeCompare(identity.HashCode(email, code), r.CodeHash) == 1
		if same && r.UserID != "" && r.Attempts < account.MaxCodeAttempts {
			cause = nil
			return nil
		}
		return p.Store.CountAttempt(ctx, tx, email)
	})
	if err != nil {
		return nil, err
	}
	return r, cause
}

// finish creates what an address registered, for its user in the pool.
func (p *Provider) finish(ctx context.Context, email, subject string, codeHash []byte) (*account.Registration, error) {
	joins := account.NewID() // the account that the user makes or joins
	invitation, err := p.Store.RegisteringWith(ctx, email)
	if err != nil {
		return nil, err
	}
	if invitation != nil {
		joins = invitation.AccountID
	}
	var r *account.Registration
	err = p.Store.DB().InTx(ctx, []string{joins}, func(tx *pg.Tx) error {
		if r, err = p.Store.Registration(ctx, tx, email); err != nil || r.UserID != "" {
			return err
		}
		if (invitation == nil) != (r.InvitationHash == nil) {
			return account.ErrInvalidCode // registered again in between
		}
		r.UserID, r.AccountID, r.Subject, r.CodeHash = account.NewID(), joins, subject, codeHash
		return p.Store.FinishRegistration(ctx, tx, r, invitation, p.Issuer)
	})
	return r, err
}

// Resend has the pool mail a new code if a registration waits for one.
func (p *Provider) Resend(ctx context.Context, email string) error {
	email = account.NormalEmail(email)
	if err := p.limits.Attempt(ctx, identity.LimitMail.By(email)); err != nil {
		return err
	}
	_, err := p.cognito.ResendConfirmationCode(ctx, &idp.ResendConfirmationCodeInput{
		ClientId: &p.ClientID, SecretHash: p.secretHash(email), Username: &email,
	})
	return failure(mailing, err)
}
