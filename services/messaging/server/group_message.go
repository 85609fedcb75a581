package server

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	messagingv1 "github.com/turumba/turumba/gen/turumba/messaging/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/auth"
	"github.com/turumba/turumba/kit/bounds"
	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/query"
	"github.com/turumba/turumba/kit/streams"
	"github.com/turumba/turumba/services/messaging"
	"github.com/turumba/turumba/services/messaging/postgres"
)

// maxMetadata is the most free data of a send, in bytes of JSON.
const maxMetadata = 32 << 10

// textInput is the text that a send may come with instead of a template.
type textInput interface {
	GetMessageBody() string
	GetSubject() string
}

// stored is the textInput of a draft, which has a template.
type stored struct{}

// GetMessageBody implements textInput.
func (stored) GetMessageBody() string { return "" }

// GetSubject implements textInput.
func (stored) GetSubject() string { return "" }

// groupInput is what a create and a dry run say of a send.
type groupInput interface {
	textInput
	GetAccountId() string
	GetName() string
	GetChannelId() string
	GetTemplateId() string
	GetContactGroupIds() []string
	GetExcludeContactIds() []string
	GetExcludeContactGroupIds() []string
	GetCustomValues() map[string]string
	GetMetadata() *structpb.Struct
}

// newGroup is the draft of a request.
func newGroup(ctx context.Context, in groupInput) (*messaging.GroupMessage, error) {
	accountID, err := auth.ScopeFrom(ctx).Target(in.GetAccountId(), auth.From(ctx))
	if err != nil {
		return nil, err
	}
	metadata, err := fromStruct(in.GetMetadata())
	if err != nil {
		return nil, err
	}
	return &messaging.GroupMessage{
		ID: messaging.NewID(), AccountID: accountID, Name: in.GetName(), ChannelID: in.GetChannelId(), TemplateID: in.GetTemplateId(),
		Status: messaging.GroupDraft, ContactGroupIDs: in.GetContactGroupIds(), ExcludeContactIDs: in.GetExcludeContactIds(),
		ExcludeContactGroupIDs: in.GetExcludeContactGroupIds(),
		CustomValues:           in.GetCustomValues(), Metadata: metadata, CreatedByUserID: auth.From(ctx).UserID,
	}, nil
}

// CreateGroupMessage implements messagingv1.GroupMessageServiceServer.
func (s *Server) CreateGroupMessage(ctx context.Context, req *messagingv1.CreateGroupMessageRequest) (*messagingv1.CreateGroupMessageResponse, error) {
	g, err := newGroup(ctx, req)
	if err != nil {
		return nil, err
	}
	if req.GetStatus() == messagingv1.GroupMessageStatus_GROUP_MESSAGE_STATUS_QUEUED {
		g.Status = messaging.GroupQueued
	}
	_, t, err := s.references(ctx, g, req)
	if err != nil {
		return nil, err
	}
	var allowed messaging.Allowance
	if g.Status == messaging.GroupQueued {
		if allowed, err = s.allowance(ctx, g); err != nil {
			return nil, err
		}
	}
	resp := &messagingv1.CreateGroupMessageResponse{}
	err = s.store.DB().InTx(ctx, []string{g.AccountID}, func(tx *pg.Tx) error {
		if err := tx.Idempotent(ctx, g.AccountID); err != nil {
			return err
		}
		if req.GetMessageBody() != "" {
			if err := s.store.CreateTemplate(ctx, tx, t); err != nil {
				return err
			}
		}
		if err := s.store.CreateGroupMessage(ctx, tx, g, mapAll(req.GetRecipients(), fromAddressRecipient), allowed); err != nil {
			return unresolved(err, "template_id")
		}
		resp.GroupMessage = toProtoGroup(g)
		return tx.Respond(ctx, resp)
	})
	if err != nil {
		return nil, err
	}
	return resp, nil
}

// references answers UNRESOLVED_REFERENCE for what the account does not have. The
// template of a message_body is made, but not stored.
func (s *Server) references(ctx context.Context, g *messaging.GroupMessage, in textInput) (*messaging.Channel, *messaging.Template, error) {
	c, err := s.store.Channel(ctx, []string{g.AccountID}, g.ChannelID)
	if err != nil {
		return nil, nil, unresolved(err, "channel_id")
	}
	if err := s.checkGroups(ctx, g); err != nil {
		return nil, nil, err
	}
	caps := s.adapters.Capabilities(c.ChannelType, c.Provider)
	if in.GetMessageBody() != "" {
		auto := messaging.AutoTemplate(g.AccountID, g.Name, g.CreatedByUserID, s.clock.Now())
		auto.Body, auto.Subject, auto.ChannelType = in.GetMessageBody(), in.GetSubject(), c.ChannelType
		g.TemplateID = auto.ID
		if err := auto.Prepare(); err != nil {
			return nil, nil, err
		}
		return c, auto, auto.Fits(c.ChannelType, caps)
	}
	t, err := s.fittingTemplate(ctx, g, c)
	return c, t, err
}

// fittingTemplate is the stored template of a send, if the channel can carry it.
func (s *Server) fittingTemplate(ctx context.Context, g *messaging.GroupMessage, c *messaging.Channel) (*messaging.Template, error) {
	scope, caps := []string{g.AccountID}, s.adapters.Capabilities(c.ChannelType, c.Provider)
	t, err := s.store.Template(ctx, scope, g.TemplateID)
	if err != nil {
		return nil, unresolved(err, "template_id")
	}
	if err := usable(t, c); err != nil {
		return nil, err
	}
	if t.Attachments, err = s.store.TemplateAttachments(ctx, scope, t.ID); err != nil {
		return nil, err
	}
	if err := messaging.FitAttachments("template_id", t.Attachments, caps); err != nil {
		return nil, err
	}
	return t, t.Fits(c.ChannelType, caps)
}

// checkGroups answers UNRESOLVED_REFERENCE unless the contact groups that a send names
// are the account's.
func (s *Server) checkGroups(ctx context.Context, g *messaging.GroupMessage) error {
	if len(g.ContactGroupIDs) > 0 {
		if err := s.directory.CheckGroups(ctx, g.AccountID, g.ContactGroupIDs); err != nil {
			return unresolved(err, "contact_group_ids")
		}
	}
	if len(g.ExcludeContactGroupIDs) > 0 {
		if err := s.directory.CheckGroups(ctx, g.AccountID, g.ExcludeContactGroupIDs); err != nil {
			return unresolved(err, "exclude_contact_group_ids")
		}
	}
	return nil
}

func fromAddressRecipient(r *messagingv1.AddressRecipient) messaging.Recipient {
	return messaging.Recipient{Given: r.GetAddress(), Name: r.GetName(), Values: r.GetValues()}
}

// usable refuses a template that cannot be sent on the channel.
func usable(t *messaging.Template, c *messaging.Channel) error {
	switch {
	case !t.IsActive:
		return invalid("template_id", "is not active")
	case t.ChannelType != "" && t.ChannelType != c.ChannelType:
		return invalid("template_id", "is for "+t.ChannelType+" and the channel is "+c.ChannelType)
	}
	return nil
}

func unresolved(err error, field string) error {
	if !apierr.HasReason(err, errorv1.Reason_REASON_NOT_FOUND) {
		return err
	}
	return apierr.New(errorv1.Reason_REASON_UNRESOLVED_REFERENCE, "%s refers to nothing in this account", field).
		WithFields(apierr.Field{Field: field, Message: "does not exist in this account"})
}

func invalid(field, message string) error {
	return apierr.New(errorv1.Reason_REASON_VALIDATION_FAILED, "the request is not valid").WithFields(apierr.Field{Field: field, Message: message})
}

func fromStruct(in *structpb.Struct) ([]byte, error) {
	if len(in.GetFields()) == 0 {
		return nil, nil
	}
	if wrong := bounds.Free(in); wrong != "" {
		return nil, invalid("metadata", wrong)
	}
	raw, err := protojson.Marshal(in)
	if err != nil {
		return nil, invalid("metadata", "must be an object of JSON")
	}
	if len(raw) > maxMetadata {
		return nil, invalid("metadata", "must have at most 32 KiB")
	}
	return raw, nil
}

// GetGroupMessage implements messagingv1.GroupMessageServiceServer.
func (s *Server) GetGroupMessage(ctx context.Context, req *messagingv1.GetGroupMessageRequest) (*messagingv1.GetGroupMessageResponse, error) {
	g, err := s.store.GroupMessage(ctx, auth.ScopeFrom(ctx), req.GetGroupMessageId())
	if err != nil {
		return nil, err
	}
	return &messagingv1.GetGroupMessageResponse{GroupMessage: toProtoGroup(g)}, nil
}

// ListGroupMessages implements messagingv1.GroupMessageServiceServer.
func (s *Server) ListGroupMessages(ctx context.Context, req *messagingv1.ListGroupMessagesRequest) (*messagingv1.ListGroupMessagesResponse, error) {
	page, err := s.store.GroupMessages(ctx, auth.ScopeFrom(ctx), query.RequestOf(req))
	if err != nil {
		return nil, err
	}
	return &messagingv1.ListGroupMessagesResponse{Data: mapAll(page.Data, toProtoGroup), Meta: page.Meta}, nil
}

// SendGroupMessage implements messagingv1.GroupMessageServiceServer.
func (s *Server) SendGroupMessage(ctx context.Context, req *messagingv1.SendGroupMessageRequest) (*messagingv1.SendGroupMessageResponse, error) {
	g, err := s.store.GroupMessage(ctx, auth.ScopeFrom(ctx), req.GetGroupMessageId())
	if err != nil {
		return nil, err
	}
	allowed, err := s.allowance(ctx, g)
	if err != nil {
		return nil, err
	}
	resp := &messagingv1.SendGroupMessageResponse{}
	send := func(ctx context.Context, tx *pg.Tx, scope []string, id string) (*messaging.GroupMessage, error) {
		return s.store.SendGroupMessage(ctx, tx, scope, id, allowed)
	}
	err = s.changeGroup(ctx, g.ID, send, func(tx *pg.Tx, g *messaging.GroupMessage) error {
		resp.GroupMessage = toProtoGroup(g)
		return tx.Respond(ctx, resp)
	})
	if err != nil {
		return nil, err
	}
	return resp, nil
}

// CancelGroupMessage implements messagingv1.GroupMessageServiceServer.
func (s *Server) CancelGroupMessage(ctx context.Context, req *messagingv1.CancelGroupMessageRequest) (*messagingv1.CancelGroupMessageResponse, error) {
	resp := &messagingv1.CancelGroupMessageResponse{}
	err := s.changeGroup(ctx, req.GetGroupMessageId(), s.store.CancelGroupMessage, func(tx *pg.Tx, g *messaging.GroupMessage) error {
		resp.GroupMessage = toProtoGroup(g)
		return tx.Respond(ctx, resp)
	})
	if err != nil {
		return nil, err
	}
	return resp, nil
}

// ResendGroupMessage implements messagingv1.GroupMessageServiceServer.
func (s *Server) ResendGroupMessage(ctx context.Context, req *messagingv1.ResendGroupMessageRequest) (*messagingv1.ResendGroupMessageResponse, error) {
	g, err := s.store.GroupMessage(ctx, auth.ScopeFrom(ctx), req.GetGroupMessageId())
	if err != nil {
		return nil, err
	}
	resp := &messagingv1.ResendGroupMessageResponse{}
	resend := func(ctx context.Context, tx *pg.Tx, scope []string, id string) (*messaging.GroupMessage, error) {
		asked := messaging.Resending{UserID: auth.From(ctx).UserID, IncludeUnknown: req.GetIncludeUnknown(), Statuses: mapAll(req.GetStatuses(), toWord[messagingv1.ResendStatus])}
		return s.store.ResendGroupMessage(ctx, tx, scope, id, asked, messaging.Allowance{Quotas: quotasOf(ctx, g.AccountID)})
	}
	err = s.changeGroup(ctx, g.ID, resend, func(tx *pg.Tx, g *messaging.GroupMessage) error {
		resp.GroupMessage = toProtoGroup(g)
		return tx.Respond(ctx, resp)
	})
	if err != nil {
		return nil, err
	}
	return resp, nil
}

// changeGroup runs a change of a send's state once per idempotency key.
func (s *Server) changeGroup(ctx context.Context, id string,
	change func(context.Context, *pg.Tx, []string, string) (*messaging.GroupMessage, error), respond func(*pg.Tx, *messaging.GroupMessage) error,
) error {
	scope := auth.ScopeFrom(ctx)
	current, err := s.store.GroupMessage(ctx, scope, id)
	if err != nil {
		return err
	}
	return s.store.DB().InTx(ctx, scope, func(tx *pg.Tx) error {
		if err := tx.Idempotent(ctx, current.AccountID); err != nil {
			return err
		}
		g, err := change(ctx, tx, scope, id)
		if err != nil {
			return err
		}
		return respond(tx, g)
	})
}

// DeleteGroupMessage implements messagingv1.GroupMessageServiceServer.
func (s *Server) DeleteGroupMessage(ctx context.Context, req *messagingv1.DeleteGroupMessageRequest) (*messagingv1.DeleteGroupMessageResponse, error) {
	if err := s.store.DeleteGroupMessage(ctx, auth.ScopeFrom(ctx), req.GetGroupMessageId()); err != nil {
		return nil, err
	}
	return &messagingv1.DeleteGroupMessageResponse{}, nil
}

// WatchGroupMessage implements messagingv1.GroupMessageServiceServer.
func (s *Server) WatchGroupMessage(req *messagingv1.WatchGroupMessageRequest, stream grpc.ServerStreamingServer[messagingv1.WatchGroupMessageResponse]) error {
	return s.sends.Watch(stream.Context(), auth.ScopeFrom(stream.Context()), req.GetGroupMessageId(), stream.Send)
}

// watchSends looks at sends for all who watch them.
func watchSends(store *postgres.Store, c clock.Clock) *streams.Watcher[*messagingv1.WatchGroupMessageResponse] {
	return streams.NewWatcher(c, apierr.NotFound("group message"), func(ctx context.Context, scope, ids []string) ([]streams.State[*messagingv1.WatchGroupMessageResponse], error) {
		found, err := store.WatchedGroupMessages(ctx, scope, ids)
		return mapAll(found, func(g *messaging.GroupMessage) streams.State[*messagingv1.WatchGroupMessageResponse] {
			return streams.State[*messagingv1.WatchGroupMessageResponse]{
				ID: g.ID, Account: g.AccountID, Changed: g.UpdatedAt, Final: g.Final(), Row: &messagingv1.WatchGroupMessageResponse{GroupMessage: toProtoGroup(g)},
			}
		}), err
	})
}

// ListSkippedRecipients implements messagingv1.GroupMessageServiceServer.
func (s *Server) ListSkippedRecipients(ctx context.Context, req *messagingv1.ListSkippedRecipientsRequest) (*messagingv1.ListSkippedRecipientsResponse, error) {
	page, err := s.store.Skips(ctx, auth.ScopeFrom(ctx), req.GetGroupMessageId(), query.RequestOf(req))
	if err != nil {
		return nil, err
	}
	return &messagingv1.ListSkippedRecipientsResponse{Data: mapAll(page.Data, toProtoSkip), Meta: page.Meta}, nil
}
