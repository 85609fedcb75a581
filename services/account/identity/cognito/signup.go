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

// Register signs the person up in the pool, which mails the code, stores what is to be
// made once the address is verified, and answers the token by which it is. A known
// address gets a notice instead, and a registration that gives nothing.
func (p *Provider) Register(ctx context.Context, r account.Registration, password string, respond func(token string) proto.Message) error {
	r.Email = account.NormalEmail(r.Email)
	if err := account.CheckPassword("password", password, r.Email, r.FullName, r.AccountName); err != nil {
		return err
	}
	if err := p.limits.Register(ctx, &r); err != nil {
		return err
	}
	r.Asker = identity.AskerFrom(ctx).Mark()
	owner := "email:" + identity.Digest(r.Email)
	if err := p.Store.DB().Replay(ctx, owner); err != nil {
		return err // repeating the call must not make another user in the pool
	}
	place, err := p.signUp(ctx, &r, password)
	if err != nil {
		return err
	}
	token := identity.NewToken()
	r.TokenHash, r.CodeHash, r.Subject = identity.HashToken(token), []byte{}, place.subject
	return p.Store.DB().InTx(ctx, nil, func(tx *pg.Tx) error {
		if err := tx.Idempotent(ctx, owner); err != nil {
			return err
		}
		known, err := p.Store.UserExists(ctx, tx, r.Email)
		if err != nil {
			return err
		}
		// Somebody who was in the pool before finishes it by logging in.
		r.Known, r.CodeExpires = known || place.busy, tx.Now.Add(account.CodeLife)
		if err := p.Store.SaveRegistration(ctx, tx, r); err != nil {
			return err
		}
		switch {
		case known || place.taken:
			err = p.Mail.Queue(ctx, tx, r.Email, identity.KnownLetter())
		case place.busy:
			err = p.Mail.Queue(ctx, tx, r.Email, identity.BusyLetter())
		}
		if err != nil {
			return err
		}
		return tx.Respond(ctx, respond(token))
	})
}

// place is what signing up gave. The pool has one user an address, with one password.
type place struct {
	subject string // the sub of the new user of the pool
	taken   bool   // there was one who had verified the address
	busy    bool   // there was one whose registration waits for its code
}

// signUp makes a user in the pool. One who had not verified the address gives way to who
// was invited to it, and has read its mails; to others once their registration did not
// begin lately: nobody proved anything. Until then a later registration must not take their
// place. Cognito is asked the same whoever is there.
func (p *Provider) signUp(ctx context.Context, r *account.Registration, password string) (place, error) {
	email := r.Email
	found, err := p.find(ctx, email)
	if err != nil {
		return place{}, err
	}
	unconfirmed := found != nil && found.UserStatus == types.UserStatusTypeUnconfirmed
	waits, err := p.Store.Signing(ctx, email, subjectOf(found, email))
	if err != nil {
		return place{}, err
	}
	if unconfirmed && (!waits || r.InvitationHash != nil) {
		_, err := p.cognito.AdminDeleteUser(ctx, &idp.AdminDeleteUserInput{UserPoolId: &p.UserPoolID, Username: &email})
		if err != nil && !is(err, userNotFound) {
			return place{}, failure(operating, err)
		}
	}
	out, err := p.cognito.SignUp(ctx, &idp.SignUpInput{
		ClientId: &p.ClientID, SecretHash: p.secretHash(email), Username: &email, Password: &password,
		UserAttributes: []types.AttributeType{{Name: aws.String("email"), Value: &email}},
	})
	if is(err, userExists) {
		taken := found != nil && !unconfirmed
		return place{taken: taken, busy: !taken}, nil
	}
	if err != nil {
		err = failure(signingUp, err)
		return place{busy: err == nil}, err
	}
	return place{subject: aws.ToString(out.UserSub)}, nil
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
// code gives the same answer again. The pool is asked only while the user who waits there
// is the one of this registration: the code in the mail may be of another.
func (p *Provider) Verify(ctx context.Context, email, code, token string) (*account.Registration, error) {
	email = account.NormalEmail(email)
	r, err := p.Store.RegistrationBegun(ctx, email, identity.HashToken(token))
	if err != nil {
		return nil, err
	}
	if _, err := p.Store.InvitationOf(ctx, r); err != nil {
		return nil, err // an invitation that is over must not use up the code
	}
	hash := identity.HashCode(token, code)
	ours, err := p.waits(ctx, r)
	if err != nil {
		return nil, err
	}
	if !ours {
		return p.verified(ctx, r, hash, account.ErrInvalidCode)
	}
	err = p.limits.Verify(ctx, email, token, true, nil, func() error { return p.confirm(ctx, email, code) })
	if err != nil {
		return p.verified(ctx, r, hash, err)
	}
	found, err := p.find(ctx, email)
	if err != nil {
		return nil, err
	}
	if subjectOf(found, email) != r.Subject {
		return nil, account.ErrInvalidCode // the code was not for this address, or not for this registration
	}
	return p.finish(ctx, r, r.Subject, hash)
}

// confirm has the pool check a code.
func (p *Provider) confirm(ctx context.Context, email, code string) error {
	_, err := p.cognito.ConfirmSignUp(ctx, &idp.ConfirmSignUpInput{
		ClientId: &p.ClientID, SecretHash: p.secretHash(email), Username: &email, ConfirmationCode: &code,
	})
	return failure(confirming, err)
}

// waits reports whether the user of a registration waits for a code in the pool.
func (p *Provider) waits(ctx context.Context, r *account.Registration) (bool, error) {
	if r.Known || r.Subject == "" || r.UserID != "" || r.Attempts >= account.MaxCodeAttempts {
		return false, nil
	}
	found, err := p.find(ctx, r.Email)
	return err == nil && subjectOf(found, r.Email) == r.Subject, err
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
func (p *Provider) verified(ctx context.Context, begun *account.Registration, codeHash []byte, cause error) (*account.Registration, error) {
	if !errors.Is(cause, account.ErrInvalidCode) {
		return nil, cause
	}
	var r *account.Registration
	err := p.Store.DB().InTx(ctx, nil, func(tx *pg.Tx) (err error) {
		if r, err = p.Store.Registration(ctx, tx, begun.Email, begun.TokenHash); err != nil {
			return err
		}
		same := subtle.ConstantTimeCompare(codeHash, r.CodeHash) == 1
		if same && r.UserID != "" && r.Attempts < account.MaxCodeAttempts {
			cause = nil
			return nil
		}
		return p.Store.CountAttempt(ctx, tx, r.TokenHash)
	})
	if err != nil {
		return nil, err
	}
	return r, cause
}

// finish creates what was registered, for its user in the pool.
func (p *Provider) finish(ctx context.Context, begun *account.Registration, subject string, codeHash []byte) (*account.Registration, error) {
	joins := account.NewID() // the account that the user makes or joins
	invitation, err := p.Store.InvitationOf(ctx, begun)
	if err != nil {
		return nil, err
	}
	if invitation != nil {
		joins = invitation.AccountID
	}
	var r *account.Registration
	err = p.Store.DB().InTx(ctx, []string{joins}, func(tx *pg.Tx) error {
		if r, err = p.Store.Registration(ctx, tx, begun.Email, begun.TokenHash); err != nil || r.UserID != "" {
			return err
		}
		r.UserID, r.AccountID, r.Subject, r.CodeHash = account.NewID(), joins, subject, codeHash
		return p.Store.FinishRegistration(ctx, tx, r, invitation, p.Issuer)
	})
	return r, err
}

// Resend has the pool mail a new code if the registration waits for one. For a known
// address the pool is asked as well, and mails none.
func (p *Provider) Resend(ctx context.Context, email, token string) error {
	email = account.NormalEmail(email)
	r, err := p.Store.RegistrationBegun(ctx, email, identity.HashToken(token))
	if errors.Is(err, account.ErrInvalidCode) || (err == nil && r.UserID != "") {
		return nil
	}
	if err != nil {
		return err
	}
	if err := p.limits.Resend(ctx, email, token); err != nil {
		return err
	}
	found, err := p.find(ctx, email)
	if err != nil {
		return err
	}
	if found != nil && found.UserStatus == types.UserStatusTypeUnconfirmed && subjectOf(found, email) != r.Subject {
		return nil // the code would be of another registration
	}
	_, err = p.cognito.ResendConfirmationCode(ctx, &idp.ResendConfirmationCodeInput{
		ClientId: &p.ClientID, SecretHash: p.secretHash(email), Username: &email,
	})
	if err != nil {
		return failure(mailing, err)
	}
	return p.Store.DB().InTx(ctx, nil, func(tx *pg.Tx) error {
		return p.Store.RenewCode(ctx, tx, r.TokenHash, []byte{}, tx.Now.Add(account.CodeLife))
	})
}
