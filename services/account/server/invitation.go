package server

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"strings"

	accountv1 "github.com/turumba/turumba/gen/turumba/account/v1"
	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/auth"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/query"
	account "github.com/turumba/turumba/services/account"
	"github.com/turumba/turumba/services/account/identity"
)

// newInvitationToken is a token of 130 random bits, and its hash.
func newInvitationToken() (token string, hash []byte) {
	token = "inv_" + strings.ToLower(rand.Text())
	return token, hashInvitation(token)
}

func hashInvitation(token string) []byte {
	sum := sha256.Sum256([]byte(token))
	return sum[:]
}

// CreateInvitation implements accountv1.InvitationServiceServer.
func (s *Server) CreateInvitation(ctx context.Context, req *accountv1.CreateInvitationRequest) (*accountv1.CreateInvitationResponse, error) {
	caller := auth.From(ctx)
	userID, err := caller.Person()
	if err != nil {
		return nil, err
	}
	accountID, err := auth.ScopeFrom(ctx).Target(req.GetAccountId(), caller)
	if err != nil {
		return nil, err
	}
	role, err := s.grantableID(ctx, accountID, req.GetRoleId())
	if err != nil {
		return nil, err
	}
	if _, err := s.limits.AttemptAny(ctx, identity.InviteLimits(ctx, accountID, account.NormalEmail(req.GetEmail()))); err != nil {
		return nil, err
	}
	token, hash := newInvitationToken()
	i := &account.Invitation{AccountID: accountID, Email: account.NormalEmail(req.GetEmail()), RoleID: req.GetRoleId(), TokenHash: hash, InvitedByUserID: userID}
	resp := &accountv1.CreateInvitationResponse{}
	err = s.store.DB().InTx(ctx, []string{accountID}, func(tx *pg.Tx) error {
		if err := tx.Idempotent(ctx, accountID); err != nil {
			return err
		}
		i.ExpiresAt = tx.Now.Add(account.InvitationLife)
		if err := s.store.CreateInvitation(ctx, tx, i); err != nil {
			return err
		}
		resp.Invitation = s.toProtoInvitation(i)
		if err := tx.Respond(ctx, resp); err != nil {
			return err
		}
		return s.mailInvitation(ctx, tx, i, role, token)
	})
	if err != nil {
		return nil, err
	}
	return resp, nil
}

// mailInvitation queues the mail with the token.
func (s *Server) mailInvitation(ctx context.Context, tx *pg.Tx, i *account.Invitation, role *account.Role, token string) error {
	m, _ := auth.From(ctx).Membership(i.AccountID)
	return s.mail.Queue(ctx, tx, i.Email, identity.InvitationLetter(m.AccountName, role.Name == account.RoleOwner, token))
}

// GetInvitation implements accountv1.InvitationServiceServer.
func (s *Server) GetInvitation(ctx context.Context, req *accountv1.GetInvitationRequest) (*accountv1.GetInvitationResponse, error) {
	i, err := s.store.Invitation(ctx, auth.ScopeFrom(ctx), req.GetInvitationId())
	if err != nil {
		return nil, err
	}
	return &accountv1.GetInvitationResponse{Invitation: s.toProtoInvitation(i)}, nil
}

// ListInvitations implements accountv1.InvitationServiceServer.
func (s *Server) ListInvitations(ctx context.Context, req *accountv1.ListInvitationsRequest) (*accountv1.ListInvitationsResponse, error) {
	page, err := s.store.Invitations(ctx, auth.ScopeFrom(ctx), query.RequestOf(req))
	if err != nil {
		return nil, err
	}
	return &accountv1.ListInvitationsResponse{Data: mapAll(page.Data, s.toProtoInvitation), Meta: page.Meta}, nil
}

// ResendInvitation implements accountv1.InvitationServiceServer.
func (s *Server) ResendInvitation(ctx context.Context, req *accountv1.ResendInvitationRequest) (*accountv1.ResendInvitationResponse, error) {
	pending, err := s.store.Invitation(ctx, auth.ScopeFrom(ctx), req.GetInvitationId())
	if err != nil {
		return nil, err
	}
	if _, err := s.limits.AttemptAny(ctx, identity.InviteLimits(ctx, pending.AccountID, pending.Email)); err != nil {
		return nil, err
	}
	role, err := s.store.Role(ctx, auth.ScopeFrom(ctx), pending.RoleID)
	if err != nil {
		return nil, err
	}
	token, hash := newInvitationToken()
	resp := &accountv1.ResendInvitationResponse{}
	err = s.store.DB().InTx(ctx, auth.ScopeFrom(ctx), func(tx *pg.Tx) error {
		i, err := s.store.ChangeInvitation(ctx, tx, auth.ScopeFrom(ctx), req.GetInvitationId(), "invitation.resend", func(i *account.Invitation) error {
			if i.Status != account.InvitationPending {
				return errSettled
			}
			i.TokenHash, i.ExpiresAt = hash, tx.Now.Add(account.InvitationLife)
			return nil
		})
		if err != nil {
			return err
		}
		resp.Invitation = s.toProtoInvitation(i)
		return s.mailInvitation(ctx, tx, i, role, token)
	})
	if err != nil {
		return nil, err
	}
	return resp, nil
}

// errSettled is a change of an invitation that was accepted or taken back.
var errSettled = apierr.New(errorv1.Reason_REASON_INVALID_STATE, "the invitation was accepted or taken back")

// RevokeInvitation implements accountv1.InvitationServiceServer.
func (s *Server) RevokeInvitation(ctx context.Context, req *accountv1.RevokeInvitationRequest) (*accountv1.RevokeInvitationResponse, error) {
	err := s.store.DB().InTx(ctx, auth.ScopeFrom(ctx), func(tx *pg.Tx) error {
		_, err := s.store.ChangeInvitation(ctx, tx, auth.ScopeFrom(ctx), req.GetInvitationId(), "invitation.revoke", func(i *account.Invitation) error {
			if i.Status == account.InvitationAccepted {
				return errSettled
			}
			i.Status = account.InvitationRevoked
			return nil
		})
		return err
	})
	if err != nil {
		return nil, err
	}
	return &accountv1.RevokeInvitationResponse{}, nil
}

// PeekInvitation implements accountv1.InvitationServiceServer.
func (s *Server) PeekInvitation(ctx context.Context, req *accountv1.PeekInvitationRequest) (*accountv1.PeekInvitationResponse, error) {
	v, err := s.store.PeekInvitation(ctx, hashInvitation(req.GetToken()))
	if err != nil {
		return nil, err
	}
	return &accountv1.PeekInvitationResponse{AccountName: v.AccountName, Email: v.Email, RoleName: v.RoleName, ExpiresAt: stamp(v.ExpiresAt)}, nil
}

// AcceptInvitation implements accountv1.InvitationServiceServer.
func (s *Server) AcceptInvitation(ctx context.Context, req *accountv1.AcceptInvitationRequest) (*accountv1.AcceptInvitationResponse, error) {
	userID, err := auth.From(ctx).Person()
	if err != nil {
		return nil, err
	}
	i, err := s.store.InvitationByToken(ctx, hashInvitation(req.GetToken()))
	if err != nil {
		return nil, err
	}
	u, err := s.store.User(ctx, userID)
	if err != nil {
		return nil, err
	}
	resp := &accountv1.AcceptInvitationResponse{}
	err = s.store.DB().InTx(ctx, []string{i.AccountID}, func(tx *pg.Tx) error {
		m, err := s.store.AcceptInvitation(ctx, tx, i, userID, u.Email)
		if err != nil {
			return err
		}
		resp.Membership = toProtoMembership(m)
		return nil
	})
	if err != nil {
		return nil, err
	}
	s.changed()
	return resp, nil
}

// registeringWith is the hash of an invitation's token that somebody registers
// with; it must be for the address and still good.
func (s *Server) registeringWith(ctx context.Context, token, email string) ([]byte, error) {
	if token == "" {
		return nil, nil
	}
	v, err := s.store.PeekInvitation(ctx, hashInvitation(token))
	if errors.Is(err, account.ErrInvitationOver) || apierr.HasReason(err, errorv1.Reason_REASON_NOT_FOUND) || (err == nil && v.Email != account.NormalEmail(email)) {
		return nil, apierr.New(errorv1.Reason_REASON_INVITATION_OVER, "the invitation is not for this address, or it is over")
	}
	if err != nil {
		return nil, err
	}
	return hashInvitation(token), nil
}

func (s *Server) toProtoInvitation(i *account.Invitation) *accountv1.Invitation {
	status := map[account.InvitationStatus]accountv1.InvitationStatus{
		account.InvitationPending: accountv1.InvitationStatus_INVITATION_STATUS_PENDING, account.InvitationAccepted: accountv1.InvitationStatus_INVITATION_STATUS_ACCEPTED,
		account.InvitationRevoked: accountv1.InvitationStatus_INVITATION_STATUS_REVOKED, account.InvitationExpired: accountv1.InvitationStatus_INVITATION_STATUS_EXPIRED,
	}[i.StatusAt(s.store.DB().Now())]
	return &accountv1.Invitation{
		Id: i.ID, AccountId: i.AccountID, Email: i.Email, RoleId: i.RoleID, Status: status, InvitedByUserId: i.InvitedByUserID,
		ExpiresAt: stamp(i.ExpiresAt), AcceptedAt: stampOrNil(i.AcceptedAt), CreatedAt: stamp(i.CreatedAt), UpdatedAt: stamp(i.UpdatedAt),
	}
}
