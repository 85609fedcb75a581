package server

import (
	"context"
	"maps"
	"strings"

	"google.golang.org/protobuf/types/known/structpb"

	messagingv1 "github.com/turumba/turumba/gen/turumba/messaging/v1"
	"github.com/turumba/turumba/kit/auth"
	"github.com/turumba/turumba/services/messaging"
)

// UpdateGroupMessage implements messagingv1.GroupMessageServiceServer. What the draft
// refers to is asked before the transaction, which the draft must then enter unchanged.
func (s *Server) UpdateGroupMessage(ctx context.Context, req *messagingv1.UpdateGroupMessageRequest) (*messagingv1.UpdateGroupMessageResponse, error) {
	scope := auth.ScopeFrom(ctx)
	g, err := s.store.GroupMessage(ctx, scope, req.GetGroupMessageId())
	if err != nil {
		return nil, err
	}
	if err := g.MayChange(); err != nil {
		return nil, err
	}
	to, replaced := []messaging.Recipient(nil), false
	for _, path := range req.GetUpdateMask().GetPaths() {
		if path == "recipients" {
			to, replaced = mapAll(req.GetGroupMessage().GetRecipients(), fromAddressRecipient), true
			g.Addresses = int32(len(to))
		} else if err := applyGroup(g, req.GetGroupMessage(), path); err != nil {
			return nil, err
		}
	}
	if len(g.ContactGroupIDs) == 0 && g.Addresses == 0 {
		return nil, invalid("contact_group_ids", "are needed where there are no recipients")
	}
	if _, _, err := s.references(ctx, g, stored{}); err != nil {
		return nil, err
	}
	if err := s.store.UpdateGroupMessage(ctx, scope, g, to, replaced); err != nil {
		return nil, unresolved(err, "template_id")
	}
	return &messagingv1.UpdateGroupMessageResponse{GroupMessage: toProtoGroup(g)}, nil
}

// applyGroup sets one named field; "custom_values.key" and "metadata.key" set one key, or
// remove it when it is absent.
func applyGroup(g *messaging.GroupMessage, in *messagingv1.GroupMessageUpdate, path string) (err error) {
	field, key, _ := strings.Cut(path, ".")
	switch field {
	case "name":
		g.Name = in.GetName()
	case "channel_id":
		g.ChannelID = in.GetChannelId()
	case "template_id":
		g.TemplateID = in.GetTemplateId()
	case "contact_group_ids":
		g.ContactGroupIDs = in.GetContactGroupIds()
	case "exclude_contact_ids":
		g.ExcludeContactIDs = in.GetExcludeContactIds()
	case "exclude_contact_group_ids":
		g.ExcludeContactGroupIDs = in.GetExcludeContactGroupIds()
	case "custom_values":
		g.CustomValues = patch(g.CustomValues, in.GetCustomValues(), key)
	case "metadata":
		g.Metadata, err = patchStruct(g.Metadata, in.GetMetadata(), key)
	}
	return err
}

// patchStruct replaces free data, or sets or removes one key of it.
func patchStruct(old []byte, in *structpb.Struct, key string) ([]byte, error) {
	if key == "" {
		return fromStruct(in)
	}
	key, _, _ = strings.Cut(key, ".")
	merged := &structpb.Struct{Fields: maps.Clone(toStruct(old).GetFields())}
	if merged.Fields == nil {
		merged.Fields = map[string]*structpb.Value{}
	}
	if v, ok := in.GetFields()[key]; ok {
		merged.Fields[key] = v
	} else {
		delete(merged.Fields, key)
	}
	return fromStruct(merged)
}
