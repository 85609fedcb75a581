package server

import (
	"context"

	messagingv1 "github.com/turumba/turumba/gen/turumba/messaging/v1"
	"github.com/turumba/turumba/kit/auth"
	"github.com/turumba/turumba/kit/query"
)

// GetMessage implements messagingv1.MessageServiceServer.
func (s *Server) GetMessage(ctx context.Context, req *messagingv1.GetMessageRequest) (*messagingv1.GetMessageResponse, error) {
	m, err := s.store.Message(ctx, auth.ScopeFrom(ctx), req.GetMessageId())
	if err != nil {
		return nil, err
	}
	return &messagingv1.GetMessageResponse{Message: toProtoMessage(m)}, nil
}

// ListMessages implements messagingv1.MessageServiceServer.
func (s *Server) ListMessages(ctx context.Context, req *messagingv1.ListMessagesRequest) (*messagingv1.ListMessagesResponse, error) {
	page, err := s.store.Messages(ctx, auth.ScopeFrom(ctx), query.RequestOf(req))
	if err != nil {
		return nil, err
	}
	return &messagingv1.ListMessagesResponse{Data: mapAll(page.Data, toProtoMessage), Meta: page.Meta}, nil
}
