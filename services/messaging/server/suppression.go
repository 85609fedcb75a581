package server

import (
	"context"

	messagingv1 "github.com/turumba/turumba/gen/turumba/messaging/v1"
	"github.com/turumba/turumba/kit/auth"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/query"
	"github.com/turumba/turumba/services/messaging"
)

// CreateSuppression implements messagingv1.SuppressionServiceServer.
func (s *Server) CreateSuppression(ctx context.Context, req *messagingv1.CreateSuppressionRequest) (*messagingv1.CreateSuppressionResponse, error) {
	accountID, err := auth.ScopeFrom(ctx).Target(req.GetAccountId(), auth.From(ctx))
	if err != nil {
		return nil, err
	}
	channelType := toWord(req.GetChannelType())
	address, err := messaging.CheckAddress(channelType, req.GetAddress(), "")
	if err != nil {
		return nil, invalid("address", "is no address for "+channelType+": it "+err.Error())
	}
	v := &messaging.Suppression{
		ID: messaging.NewID(), AccountID: accountID, ChannelType: channelType, Address: messaging.AddressKey(channelType, address),
		Reason: messaging.SuppressedManually, Note: req.GetNote(), CreatedByUserID: auth.From(ctx).UserID,
	}
	if req.GetReason() != 0 {
		v.Reason = toWord(req.GetReason())
	}
	resp := &messagingv1.CreateSuppressionResponse{}
	err = s.store.DB().InTx(ctx, []string{accountID}, func(tx *pg.Tx) error {
		if err := tx.Idempotent(ctx, accountID); err != nil {
			return err
		}
		if err := s.store.CreateSuppression(ctx, tx, v); err != nil {
			return err
		}
		resp.Suppression = toProtoSuppression(v)
		return tx.Respond(ctx, resp)
	})
	if err != nil {
		return nil, err
	}
	return resp, nil
}

// GetSuppression implements messagingv1.SuppressionServiceServer.
func (s *Server) GetSuppression(ctx context.Context, req *messagingv1.GetSuppressionRequest) (*messagingv1.GetSuppressionResponse, error) {
	v, err := s.store.Suppression(ctx, auth.ScopeFrom(ctx), req.GetSuppressionId())
	if err != nil {
		return nil, err
	}
	return &messagingv1.GetSuppressionResponse{Suppression: toProtoSuppression(v)}, nil
}

// ListSuppressions implements messagingv1.SuppressionServiceServer.
func (s *Server) ListSuppressions(ctx context.Context, req *messagingv1.ListSuppressionsRequest) (*messagingv1.ListSuppressionsResponse, error) {
	page, err := s.store.Suppressions(ctx, auth.ScopeFrom(ctx), query.RequestOf(req))
	if err != nil {
		return nil, err
	}
	return &messagingv1.ListSuppressionsResponse{Data: mapAll(page.Data, toProtoSuppression), Meta: page.Meta}, nil
}

// DeleteSuppression implements messagingv1.SuppressionServiceServer.
func (s *Server) DeleteSuppression(ctx context.Context, req *messagingv1.DeleteSuppressionRequest) (*messagingv1.DeleteSuppressionResponse, error) {
	if err := s.store.DeleteSuppression(ctx, auth.ScopeFrom(ctx), req.GetSuppressionId()); err != nil {
		return nil, err
	}
	return &messagingv1.DeleteSuppressionResponse{}, nil
}

func toProtoSuppression(v *messaging.Suppression) *messagingv1.Suppression {
	return &messagingv1.Suppression{
		Id: v.ID, AccountId: v.AccountID, ChannelType: fromWord[messagingv1.ChannelType](v.ChannelType), Address: v.Address,
		Reason: fromWord[messagingv1.SuppressionReason](v.Reason), Note: v.Note, CreatedByUserId: v.CreatedByUserID, CreatedAt: stamp(v.CreatedAt),
	}
}
