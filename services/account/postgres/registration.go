package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/pg"
	account "github.com/turumba/turumba/services/account"
)

const registrationColumns = `email, token_hash, known, password_hash, full_name, account_name, code_hash, code_expires, attempts, subject,
	coalesce(user_id::text, '') AS user_id, coalesce(account_id::text, '') AS account_id, invitation_hash, asker`

// SaveRegistration stores a registration that waits for its code, beside others of the
// same address; RATE_LIMITED while account.MaxRegistrations by the same asker wait, but for
// who was invited to the address. Whether it has a user makes no difference.
func (s *Store) SaveRegistration(ctx context.Context, tx *pg.Tx, r account.Registration) error {
	if err := lockRegistrations(ctx, tx, r.Email); err != nil {
		return err
	}
	var waiting int
	var first *time.Time
	err := tx.QueryRow(ctx, `
		SELECT count(*), min(code_expires) FROM pending_registrations
		WHERE email = $1 AND asker = $3 AND user_id IS NULL AND code_expires > $2`, r.Email, tx.Now, r.Asker).Scan(&waiting, &first)
	if err != nil {
		return fmt.Errorf("count registrations: %w", err)
	}
	if waiting >= account.MaxRegistrations && r.InvitationHash == nil {
		return apierr.RateLimited(first.Sub(tx.Now), "too many registrations of the address wait for their codes")
	}
	_, err = tx.Exec(ctx, `
		INSERT INTO pending_registrations (token_hash, email, known, subject, password_hash, full_name, account_name, code_hash, code_expires, created_at, invitation_hash, asker)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)`,
		r.TokenHash, r.Email, r.Known, r.Subject, r.PasswordHash, r.FullName, r.AccountName, r.CodeHash, r.CodeExpires, tx.Now, r.InvitationHash, r.Asker)
	if err != nil {
		return fmt.Errorf("save registration: %w", err)
	}
	return nil
}

// lockRegistrations lets one transaction at a time begin or finish registrations of an
// address.
func lockRegistrations(ctx context.Context, tx *pg.Tx, email string) error {
	if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock(hashtextextended('registrations of ' || $1, 0))", email); err != nil {
		return fmt.Errorf("lock registrations: %w", err)
	}
	return nil
}

// RenewCode replaces the code of a registration.
func (s *Store) RenewCode(ctx context.Context, tx *pg.Tx, tokenHash, codeHash []byte, expires time.Time) error {
	_, err := tx.Exec(ctx, "UPDATE pending_registrations SET code_hash = $2, code_expires = $3, attempts = 0 WHERE token_hash = $1", tokenHash, codeHash, expires)
	if err != nil {
		return fmt.Errorf("renew code: %w", err)
	}
	return nil
}

// Registration locks and returns the registration of an address that a token began. No
// other of the address is finished meanwhile.
func (s *Store) Registration(ctx context.Context, tx *pg.Tx, email string, tokenHash []byte) (*account.Registration, error) {
	if err := lockRegistrations(ctx, tx, email); err != nil {
		return nil, err
	}
	rows, err := tx.Query(ctx, "SELECT "+registrationColumns+" FROM pending_registrations WHERE token_hash = $1 AND email = $2 FOR UPDATE", tokenHash, email)
	if err != nil {
		return nil, fmt.Errorf("read registration: %w", err)
	}
	return pg.One[account.Registration](account.ErrInvalidCode)(rows)
}

// RegistrationBegun is Registration without the lock.
func (s *Store) RegistrationBegun(ctx context.Context, email string, tokenHash []byte) (*account.Registration, error) {
	rows, err := s.db.Query(ctx, "SELECT "+registrationColumns+" FROM pending_registrations WHERE token_hash = $1 AND email = $2", tokenHash, email)
	if err != nil {
		return nil, fmt.Errorf("read registration: %w", err)
	}
	return pg.One[account.Registration](account.ErrInvalidCode)(rows)
}

// RegistrationOf is what somebody at another identity provider registered: they
// themselves, else who registered the address when they were there already, the newest.
func (s *Store) RegistrationOf(ctx context.Context, email, subject string) (*account.Registration, error) {
	rows, err := s.db.Query(ctx, "SELECT "+registrationColumns+` FROM pending_registrations
		WHERE email = $1 AND user_id IS NULL AND NOT known AND subject IN ($2, '') ORDER BY subject DESC, created_at DESC LIMIT 1`, email, subject)
	if err != nil {
		return nil, fmt.Errorf("read registration: %w", err)
	}
	return pg.One[account.Registration](account.ErrInvalidCode)(rows)
}

// Signing reports whether a registration of the address, by the subject, began lately:
// another one must not take its place. New codes do not prolong that, so that nobody holds
// an address by asking for them.
func (s *Store) Signing(ctx context.Context, email, subject string) (bool, error) {
	var waits bool
	err := s.db.QueryRow(ctx, `
		SELECT EXISTS (SELECT FROM pending_registrations WHERE email = $1 AND subject = $2 AND user_id IS NULL AND created_at > $3)`,
		email, subject, s.db.Now().Add(-account.CodeLife)).Scan(&waits)
	if err != nil {
		return false, fmt.Errorf("look for registrations: %w", err)
	}
	return waits, nil
}

// InvitationOf is the invitation that a registration is by; nil without one.
func (s *Store) InvitationOf(ctx context.Context, r *account.Registration) (*account.Invitation, error) {
	if r.InvitationHash == nil || r.UserID != "" {
		return nil, nil
	}
	i, err := s.InvitationByToken(ctx, r.InvitationHash)
	if apierr.HasReason(err, errorv1.Reason_REASON_NOT_FOUND) {
		return nil, account.ErrInvitationOver // it was sent again, with another token
	}
	return i, err
}

// CountAttempt notes a wrong code.
func (s *Store) CountAttempt(ctx context.Context, tx *pg.Tx, tokenHash []byte) error {
	_, err := tx.Exec(ctx, "UPDATE pending_registrations SET attempts = attempts + 1 WHERE token_hash = $1", tokenHash)
	if err != nil {
		return fmt.Errorf("count attempt: %w", err)
	}
	return nil
}

// FinishRegistration creates the user of a verified registration, and the account
// with its roles and the Owner membership, or the membership of the invitation,
// in the transaction that checked its code; the transaction's scope must be that
// account. The other registrations of the address end.
func (s *Store) FinishRegistration(ctx context.Context, tx *pg.Tx, r *account.Registration, i *account.Invitation, issuer string) error {
	ctx = actingAs(ctx, r.UserID)
	given, family := account.SplitName(r.FullName)
	_, err := tx.Exec(ctx, `
		INSERT INTO users (id, email, given_name, family_name, idp_issuer, idp_subject, password_hash, created_at, updated_at)
		VALUES ($1, $2, $3, $4, $5, $6, nullif($7, ''), $8, $8)`,
		r.UserID, r.Email, given, family, issuer, r.Subject, r.PasswordHash, tx.Now)
	if pg.IsUnique(err, "") {
		return account.ErrInvalidCode // somebody with this address was first
	}
	if err != nil {
		return fmt.Errorf("insert user: %w", err)
	}
	if i != nil {
		_, err = s.AcceptInvitation(ctx, tx, i, r.UserID, r.Email)
	} else {
		err = s.CreateAccount(ctx, tx, account.Account{ID: r.AccountID, Name: r.AccountName, Status: account.StatusActive}, r.UserID)
	}
	if err != nil {
		return err
	}
	b := &pgx.Batch{}
	b.Queue("UPDATE pending_registrations SET user_id = $2, account_id = $3, code_hash = $4, password_hash = '' WHERE token_hash = $1",
		r.TokenHash, r.UserID, r.AccountID, r.CodeHash)
	b.Queue("DELETE FROM pending_registrations WHERE email = $1 AND token_hash <> $2", r.Email, r.TokenHash)
	if err := tx.SendBatch(ctx, b).Close(); err != nil {
		return fmt.Errorf("finish registration: %w", err)
	}
	return nil
}
