package server

import (
	"context"
	"strings"

	messagingv1 "github.com/turumba/turumba/gen/turumba/messaging/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/auth"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/query"
	"github.com/turumba/turumba/services/messaging"
)

// CreateTemplate implements messagingv1.TemplateServiceServer.
func (s *Server) CreateTemplate(ctx context.Context, req *messagingv1.CreateTemplateRequest) (*messagingv1.CreateTemplateResponse, error) {
	accountID, err := auth.ScopeFrom(ctx).Target(req.GetAccountId(), auth.From(ctx))
	if err != nil {
		return nil, err
	}
	t := &messaging.Template{
		ID: messaging.NewID(), AccountID: accountID, Name: req.GetName(), Body: req.GetBody(), HTMLBody: req.GetHtmlBody(), Subject: req.GetSubject(),
		Category: req.GetCategory(), ChannelType: toWord(req.GetChannelType()), Language: req.GetLanguage(), DefaultValues: req.GetDefaultValues(),
		FallbackStrategy: toWord(req.GetFallbackStrategy()), IsActive: true, CreatedByUserID: auth.From(ctx).UserID,
	}
	if err := t.Prepare(); err != nil {
		return nil, err
	}
	resp := &messagingv1.CreateTemplateResponse{}
	err = s.store.DB().InTx(ctx, []string{accountID}, func(tx *pg.Tx) error {
		if err := tx.Idempotent(ctx, accountID); err != nil {
			return err
		}
		if err := s.store.CreateTemplate(ctx, tx, t); err != nil {
			return err
		}
		resp.Template = toProtoTemplate(t)
		return tx.Respond(ctx, resp)
	})
	if err != nil {
		return nil, err
	}
	return resp, nil
}

// GetTemplate implements messagingv1.TemplateServiceServer.
func (s *Server) GetTemplate(ctx context.Context, req *messagingv1.GetTemplateRequest) (*messagingv1.GetTemplateResponse, error) {
	t, err := s.store.Template(ctx, auth.ScopeFrom(ctx), req.GetTemplateId())
	if err != nil {
		return nil, err
	}
	if t.Attachments, err = s.store.TemplateAttachments(ctx, auth.ScopeFrom(ctx), t.ID); err != nil {
		return nil, err
	}
	return &messagingv1.GetTemplateResponse{Template: toProtoTemplate(t)}, nil
}

// ListTemplates implements messagingv1.TemplateServiceServer.
func (s *Server) ListTemplates(ctx context.Context, req *messagingv1.ListTemplatesRequest) (*messagingv1.ListTemplatesResponse, error) {
	page, err := s.store.Templates(ctx, auth.ScopeFrom(ctx), query.RequestOf(req))
	if err != nil {
		return nil, err
	}
	return &messagingv1.ListTemplatesResponse{Data: mapAll(page.Data, toProtoTemplate), Meta: page.Meta}, nil
}

// UpdateTemplate implements messagingv1.TemplateServiceServer.
func (s *Server) UpdateTemplate(ctx context.Context, req *messagingv1.UpdateTemplateRequest) (*messagingv1.UpdateTemplateResponse, error) {
	t, err := s.store.UpdateTemplate(ctx, auth.ScopeFrom(ctx), req.GetTemplateId(), func(t *messaging.Template) error {
		for _, path := range req.GetUpdateMask().GetPaths() {
			applyTemplate(t, req.GetTemplate(), path)
		}
		return t.Prepare()
	})
	if err != nil {
		return nil, err
	}
	return &messagingv1.UpdateTemplateResponse{Template: toProtoTemplate(t)}, nil
}

func applyTemplate(t *messaging.Template, u *messagingv1.TemplateUpdate, path string) {
	field, key, _ := strings.Cut(path, ".")
	switch field {
	case "name":
		t.Name = u.GetName()
	case "body":
		t.Body = u.GetBody()
	case "html_body":
		t.HTMLBody = u.GetHtmlBody()
	case "subject":
		t.Subject = u.GetSubject()
	case "category":
		t.Category = u.GetCategory()
	case "channel_type":
		t.ChannelType = toWord(u.GetChannelType())
	case "language":
		t.Language = u.GetLanguage()
	case "default_values":
		t.DefaultValues = patch(t.DefaultValues, u.GetDefaultValues(), key)
	case "fallback_strategy":
		t.FallbackStrategy = toWord(u.GetFallbackStrategy())
	case "is_active":
		t.IsActive = u.GetIsActive()
	case "approval_status":
		t.ApprovalStatus = toWord(u.GetApprovalStatus())
	case "external_template_id":
		t.ExternalTemplateID = u.GetExternalTemplateId()
	}
}

// patch replaces a map, or sets or removes one key of it.
func patch(old, in map[string]string, key string) map[string]string {
	if key == "" {
		return in
	}
	out := map[string]string{}
	for k, v := range old {
		out[k] = v
	}
	if v, ok := in[key]; ok {
		out[key] = v
	} else {
		delete(out, key)
	}
	return out
}

// DeleteTemplate implements messagingv1.TemplateServiceServer.
func (s *Server) DeleteTemplate(ctx context.Context, req *messagingv1.DeleteTemplateRequest) (*messagingv1.DeleteTemplateResponse, error) {
	if err := s.store.DeleteTemplate(ctx, auth.ScopeFrom(ctx), req.GetTemplateId()); err != nil {
		return nil, err
	}
	return &messagingv1.DeleteTemplateResponse{}, nil
}

// DuplicateTemplate implements messagingv1.TemplateServiceServer.
func (s *Server) DuplicateTemplate(ctx context.Context, req *messagingv1.DuplicateTemplateRequest) (*messagingv1.DuplicateTemplateResponse, error) {
	t, err := s.store.Template(ctx, auth.ScopeFrom(ctx), req.GetTemplateId())
	if err != nil {
		return nil, err
	}
	resp := &messagingv1.DuplicateTemplateResponse{}
	err = s.store.DB().InTx(ctx, []string{t.AccountID}, func(tx *pg.Tx) error {
		if err := tx.Idempotent(ctx, t.AccountID); err != nil {
			return err
		}
		name := req.GetName()
		if name == "" {
			if name, err = s.store.FreeTemplateName(ctx, tx, t.AccountID, messaging.CopyNames(t.Name)); err != nil {
				return err
			}
		}
		c := t.Copy(name, auth.From(ctx).UserID)
		if err := s.store.CreateTemplate(ctx, tx, c); err != nil {
			return err
		}
		if err := s.store.CopyAttachments(ctx, tx, t.ID, c); err != nil {
			return err
		}
		resp.Template = toProtoTemplate(c)
		return tx.Respond(ctx, resp)
	})
	if err != nil {
		return nil, err
	}
	return resp, nil
}

// PreviewTemplate implements messagingv1.TemplateServiceServer.
func (s *Server) PreviewTemplate(ctx context.Context, req *messagingv1.PreviewTemplateRequest) (*messagingv1.PreviewTemplateResponse, error) {
	t, err := s.store.Template(ctx, auth.ScopeFrom(ctx), req.GetTemplateId())
	if err != nil {
		return nil, err
	}
	channelType := toWord(req.GetChannelType())
	switch {
	case channelType == "":
		channelType = t.ChannelType
	case t.ChannelType != "" && t.ChannelType != channelType:
		return nil, invalid("channel_type", "the template is for "+t.ChannelType)
	}
	r, err := messaging.NewRenderer(t.Snapshot())
	if err != nil {
		return nil, err
	}
	sources, to, err := s.previewSources(ctx, t, req, r.Variables())
	if err != nil {
		return nil, err
	}
	text := r.Compose(channelType, sources, to)
	if text.Excess != "" {
		return nil, text.Complete("values")
	}
	return toProtoPreview(text, channelType), nil
}

// previewSources are the values that a send by the caller would use, for a contact or
// for the sample person.
func (s *Server) previewSources(ctx context.Context, t *messaging.Template, req *messagingv1.PreviewTemplateRequest, variables []string) (messaging.Sources, messaging.Recipient, error) {
	to := messaging.SampleRecipient()
	if id := req.GetContactId(); id != "" {
		contacts, err := s.directory.Contacts(ctx, t.AccountID, []string{id}, variables)
		if err != nil {
			return messaging.Sources{}, to, err
		}
		contact, ok := contacts[id]
		if !ok {
			return messaging.Sources{}, to, unresolved(apierr.NotFound("contact"), "contact_id")
		}
		to = contact
	}
	channelType := t.ChannelType
	if req.GetChannelType() != 0 {
		channelType = toWord(req.GetChannelType())
	}
	sources := messaging.Sources{Custom: req.GetValues(), Now: s.clock.Now(), WayOut: s.wayOut(t.AccountID, orEmail(channelType), "")}
	var err error
	sources.AccountName, sources.SenderName, sources.SenderEmail, err = s.directory.Sender(ctx, t.AccountID, auth.From(ctx).UserID)
	return sources, to, err
}

// orEmail is what a template for any channel is shown as.
func orEmail(channelType string) string {
	if channelType == "" {
		return messaging.TypeEmail
	}
	return channelType
}

func toProtoPreview(text messaging.Composed, channelType string) *messagingv1.PreviewTemplateResponse {
	out := &messagingv1.PreviewTemplateResponse{
		Subject: text.Subject, Body: text.Text, HtmlBody: text.HTML, Unresolved: text.Unresolved, Skipped: text.Skip,
	}
	if messaging.IsSMS(channelType) {
		n := messaging.CountSegments(text.Text)
		out.Encoding, out.Units, out.Segments = fromWord[messagingv1.MessageEncoding](string(n.Encoding)), int32(n.Units), int32(n.Count)
	}
	return out
}
