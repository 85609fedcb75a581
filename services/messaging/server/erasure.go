package server

import (
	"context"

	messagingv1 "github.com/turumba/turumba/gen/turumba/messaging/v1"
	"github.com/turumba/turumba/kit/auth"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/query"
	"github.com/turumba/turumba/services/messaging"
)

// CreateMessageErasure implements messagingv1.MessageErasureServiceServer.
func (s *Server) CreateMessageErasure(ctx context.Context, req *messagingv1.CreateMessageErasureRequest) (*messagingv1.CreateMessageErasureResponse, error) {
	caller := auth.From(ctx)
	accountID, err := auth.ScopeFrom(ctx).Target(req.GetAccountId(), caller)
	if err != nil {
		return nil, err
	}
	e := &messaging.Erasure{
		ID: messaging.NewID(), AccountID: accountID, ContactID: req.GetContactId(), Address: req.GetDeliveryAddress(),
		CreatedByUserID: caller.UserID, CreatedByAPIKeyID: caller.APIKeyID,
	}
	resp := &messagingv1.CreateMessageErasureResponse{}
	err = s.store.DB().InTx(ctx, []string{accountID}, func(tx *pg.Tx) error {
		if err := tx.Idempotent(ctx, accountID); err != nil {
			return err
		}
		if err := s.store.CreateErasure(ctx, tx, e); err != nil {
			return err
		}
		resp.MessageErasure = toProtoErasure(e)
		return tx.Respond(ctx, resp)
	})
	if err != nil {
		return nil, err
	}
	return resp, nil
}

// EraseMessage implements messagingv1.MessageServiceServer.
func (s *Server) EraseMessage(ctx context.Context, req *messagingv1.EraseMessageRequest) (*messagingv1.EraseMessageResponse, error) {
	accountID, err := s.store.MessageAccount(ctx, auth.ScopeFrom(ctx), req.GetMessageId())
	if err != nil {
		return nil, err
	}
	caller := auth.From(ctx)
	e := &messaging.Erasure{
		ID: messaging.NewID(), AccountID: accountID, MessageID: req.GetMessageId(), CreatedByUserID: caller.UserID, CreatedByAPIKeyID: caller.APIKeyID,
	}
	resp := &messagingv1.EraseMessageResponse{}
	err = s.store.DB().InTx(ctx, []string{accountID}, func(tx *pg.Tx) error {
		if err := tx.Idempotent(ctx, accountID); err != nil {
			return err
		}
		m, err := s.store.EraseMessage(ctx, tx, e)
		if err != nil {
			return err
		}
		resp.Message = toProtoMessage(m)
		return tx.Respond(ctx, resp)
	})
	if err != nil {
		return nil, err
	}
	return resp, nil
}

// GetMessageErasure implements messagingv1.MessageErasureServiceServer.
func (s *Server) GetMessageErasure(ctx context.Context, req *messagingv1.GetMessageErasureRequest) (*messagingv1.GetMessageErasureResponse, error) {
	e, err := s.store.Erasure(ctx, auth.ScopeFrom(ctx), req.GetMessageErasureId())
	if err != nil {
		return nil, err
	}
	return &messagingv1.GetMessageErasureResponse{MessageErasure: toProtoErasure(e)}, nil
}

// ListMessageErasures implements messagingv1.MessageErasureServiceServer.
func (s *Server) ListMessageErasures(ctx context.Context, req *messagingv1.ListMessageErasuresRequest) (*messagingv1.ListMessageErasuresResponse, error) {
	page, err := s.store.Erasures(ctx, auth.ScopeFrom(ctx), query.RequestOf(req))
	if err != nil {
		return nil, err
	}
	return &messagingv1.ListMessageErasuresResponse{Data: mapAll(page.Data, toProtoErasure), Meta: page.Meta}, nil
}

func toProtoErasure(e *messaging.Erasure) *messagingv1.MessageErasure {
	return &messagingv1.MessageErasure{
		Id: e.ID, AccountId: e.AccountID, MessageId: e.MessageID, ContactId: e.ContactID, DeliveryAddress: e.Address,
		Status: fromWord[messagingv1.MessageErasureStatus](e.Status), ErasedCount: e.Erased, WaitingCount: e.Waiting,
		CreatedByUserId: e.CreatedByUserID, CreatedByApiKeyId: e.CreatedByAPIKeyID, CreatedAt: stamp(e.CreatedAt), CompletedAt: stampOrNil(e.CompletedAt),
	}
}
