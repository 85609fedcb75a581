package server

import (
	"context"

	messagingv1 "github.com/turumba/turumba/gen/turumba/messaging/v1"
	"github.com/turumba/turumba/kit/auth"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/services/messaging"
)

// CreateTemplateAttachment implements messagingv1.TemplateServiceServer.
func (s *Server) CreateTemplateAttachment(ctx context.Context, req *messagingv1.CreateTemplateAttachmentRequest) (*messagingv1.CreateTemplateAttachmentResponse, error) {
	t, err := s.store.Template(ctx, auth.ScopeFrom(ctx), req.GetTemplateId())
	if err != nil {
		return nil, err
	}
	a, err := messaging.NewAttachment(t, req.GetFilename(), req.GetContentId(), req.GetContent())
	if err != nil {
		return nil, err
	}
	resp := &messagingv1.CreateTemplateAttachmentResponse{}
	err = s.store.DB().InTx(ctx, []string{t.AccountID}, func(tx *pg.Tx) error {
		if err := tx.Idempotent(ctx, t.AccountID); err != nil {
			return err
		}
		if err := s.store.AddAttachment(ctx, tx, a, req.GetContent()); err != nil {
			return err
		}
		resp.Attachment = toProtoAttachment(a)
		return tx.Respond(ctx, resp)
	})
	if err != nil {
		return nil, err
	}
	return resp, nil
}

// GetTemplateAttachment implements messagingv1.TemplateServiceServer.
func (s *Server) GetTemplateAttachment(ctx context.Context, req *messagingv1.GetTemplateAttachmentRequest) (*messagingv1.GetTemplateAttachmentResponse, error) {
	a, data, err := s.store.Attachment(ctx, auth.ScopeFrom(ctx), req.GetTemplateId(), req.GetAttachmentId())
	if err != nil {
		return nil, err
	}
	return &messagingv1.GetTemplateAttachmentResponse{Attachment: toProtoAttachment(a), Content: data}, nil
}

// DeleteTemplateAttachment implements messagingv1.TemplateServiceServer.
func (s *Server) DeleteTemplateAttachment(ctx context.Context, req *messagingv1.DeleteTemplateAttachmentRequest) (*messagingv1.DeleteTemplateAttachmentResponse, error) {
	if err := s.store.DeleteAttachment(ctx, auth.ScopeFrom(ctx), req.GetTemplateId(), req.GetAttachmentId()); err != nil {
		return nil, err
	}
	return &messagingv1.DeleteTemplateAttachmentResponse{}, nil
}
