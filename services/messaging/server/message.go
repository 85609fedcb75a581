package server

import (
	"context"

	messagingv1 "github.com/turumba/turumba/gen/turumba/messaging/v1"
	"github.com/turumba/turumba/kit/auth"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/query"
	"github.com/turumba/turumba/services/messaging"
)

// GetMessage implements messagingv1.MessageServiceServer.
func (s *Server) GetMessage(ctx context.Context, req *messagingv1.GetMessageRequest) (*messagingv1.GetMessageResponse, error) {
	m, err := s.store.Message(ctx, auth.ScopeFrom(ctx), req.GetMessageId())
	if err != nil {
		return nil, err
	}
	out, err := s.toProtoMessages(ctx, []*messaging.Message{m})
	if err != nil {
		return nil, err
	}
	return &messagingv1.GetMessageResponse{Message: out[0]}, nil
}

// ListMessages implements messagingv1.MessageServiceServer.
func (s *Server) ListMessages(ctx context.Context, req *messagingv1.ListMessagesRequest) (*messagingv1.ListMessagesResponse, error) {
	page, err := s.store.Messages(ctx, auth.ScopeFrom(ctx), query.RequestOf(req))
	if err != nil {
		return nil, err
	}
	out, err := s.toProtoMessages(ctx, page.Data)
	if err != nil {
		return nil, err
	}
	return &messagingv1.ListMessagesResponse{Data: out, Meta: page.Meta}, nil
}

// CancelMessage implements messagingv1.MessageServiceServer.
func (s *Server) CancelMessage(ctx context.Context, req *messagingv1.CancelMessageRequest) (*messagingv1.CancelMessageResponse, error) {
	resp := &messagingv1.CancelMessageResponse{}
	err := s.changeMessage(ctx, req.GetMessageId(), s.store.CancelMessage, func(tx *pg.Tx, m *messaging.Message) error {
		resp.Message = toProtoMessage(m)
		return tx.Respond(ctx, resp)
	})
	if err != nil {
		return nil, err
	}
	return resp, nil
}

// RetryMessage implements messagingv1.MessageServiceServer.
func (s *Server) RetryMessage(ctx context.Context, req *messagingv1.RetryMessageRequest) (*messagingv1.RetryMessageResponse, error) {
	resp := &messagingv1.RetryMessageResponse{}
	err := s.changeMessage(ctx, req.GetMessageId(), s.store.RetryMessage, func(tx *pg.Tx, m *messaging.Message) error {
		resp.Message = toProtoMessage(m)
		return tx.Respond(ctx, resp)
	})
	if err != nil {
		return nil, err
	}
	return resp, nil
}

// changeMessage runs a change of a message's state once per idempotency key. The
// answer shows the message as it was read, with what the change did to it.
func (s *Server) changeMessage(ctx context.Context, id string,
	change func(context.Context, *pg.Tx, []string, string) (*messaging.Message, error), respond func(*pg.Tx, *messaging.Message) error,
) error {
	scope := auth.ScopeFrom(ctx)
	current, err := s.store.Message(ctx, scope, id)
	if err != nil {
		return err
	}
	return s.store.DB().InTx(ctx, scope, func(tx *pg.Tx) error {
		if err := tx.Idempotent(ctx, current.AccountID); err != nil {
			return err
		}
		m, err := change(ctx, tx, scope, id)
		if err != nil {
			return err
		}
		m.Subject, m.Body, m.History = current.Subject, current.Body, current.History
		return respond(tx, m)
	})
}

// DeleteMessage implements messagingv1.MessageServiceServer.
func (s *Server) DeleteMessage(ctx context.Context, req *messagingv1.DeleteMessageRequest) (*messagingv1.DeleteMessageResponse, error) {
	if err := s.store.DeleteMessage(ctx, auth.ScopeFrom(ctx), req.GetMessageId()); err != nil {
		return nil, err
	}
	return &messagingv1.DeleteMessageResponse{}, nil
}
