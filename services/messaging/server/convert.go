package server

import (
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	messagingv1 "github.com/turumba/turumba/gen/turumba/messaging/v1"
	"github.com/turumba/turumba/kit/bounds"
	"github.com/turumba/turumba/services/messaging"
	"github.com/turumba/turumba/services/messaging/channel"
)

func mapAll[F, T any](in []F, convert func(F) T) []T {
	out := make([]T, len(in))
	for i, v := range in {
		out[i] = convert(v)
	}
	return out
}

func stamp(t time.Time) *timestamppb.Timestamp { return timestamppb.New(t) }

func stampOrNil(t *time.Time) *timestamppb.Timestamp {
	if t == nil {
		return nil
	}
	return timestamppb.New(*t)
}

// enum is any enum of the contract.
type enum interface {
	~int32
	protoreflect.Enum
}

// fromWord is the value whose word is stored, for example "queued" for
// MESSAGE_STATUS_QUEUED; an unknown word is the zero value.
func fromWord[E enum](word string) E {
	var zero E
	values := zero.Descriptor().Values()
	prefix := strings.TrimSuffix(string(values.ByNumber(0).Name()), "UNSPECIFIED")
	v := values.ByName(protoreflect.Name(prefix + strings.ToUpper(word)))
	if v == nil {
		return zero
	}
	return E(v.Number())
}

// toWord is the stored word of a value; the zero value is "".
func toWord[E enum](e E) string {
	if e == 0 {
		return ""
	}
	values := e.Descriptor().Values()
	prefix := strings.TrimSuffix(string(values.ByNumber(0).Name()), "UNSPECIFIED")
	return strings.ToLower(strings.TrimPrefix(string(values.ByNumber(protoreflect.EnumNumber(e)).Name()), prefix))
}

func (s *Server) toProtoChannel(c *messaging.Channel) *messagingv1.Channel {
	out := &messagingv1.Channel{
		Id: c.ID, AccountId: c.AccountID, Name: c.Name, ChannelType: fromWord[messagingv1.ChannelType](c.ChannelType), Provider: c.Provider,
		Status: fromWord[messagingv1.ChannelStatus](c.ShownStatus(s.clock.Now())), IsEnabled: c.IsEnabled,
		Credentials: c.Credentials.Message(), Secrets: map[string]*messagingv1.SecretState{},
		SenderName: c.SenderName, DefaultCountryCode: c.DefaultCountryCode, RateLimit: c.RateLimit, Priority: c.Priority,
		RetryCount: c.RetryCount, RetryInterval: c.RetryInterval, Connections: c.Connections,
		OnUnknown: fromWord[messagingv1.UnknownOutcome](c.OnUnknown), LastVerifiedAt: stampOrNil(c.LastVerifiedAt),
		ErrorMessage: c.ErrorMessage, PausedUntil: stampOrNil(c.PausedUntil), RetryAt: stampOrNil(c.CircuitUntil), CreatedAt: stamp(c.CreatedAt), UpdatedAt: stamp(c.UpdatedAt),
		Capabilities: toProtoCapabilities(c.ChannelType, s.adapters.Capabilities(c.ChannelType, c.Provider)),
	}
	for name, secret := range c.Secrets {
		out.Secrets[name] = &messagingv1.SecretState{Set: true, UpdatedAt: stamp(secret.UpdatedAt), Fingerprint: secret.Fingerprint}
	}
	return out
}

func toProtoCapabilities(channelType string, c channel.Capabilities) *messagingv1.ChannelCapabilities {
	out := &messagingv1.ChannelCapabilities{
		MaxText: int32(c.MaxText), MaxBytes: int32(c.MaxBytes), MaxAttachments: int32(c.MaxAttachments), MaxAttachmentBytes: int32(c.MaxAttachmentBytes),
		MaxInFlight: int32(c.MaxInFlight), Subject: c.Subject, Html: c.HTML, ReplyTo: c.ReplyTo, Unsubscribe: c.Unsubscribe,
		Receipts: c.Receipts, Lookup: c.Lookup, Inbound: c.Inbound,
	}
	if messaging.IsSMS(channelType) {
		out.MaxSegments = messaging.MaxSegments
	}
	return out
}

func toProtoTemplate(t *messaging.Template) *messagingv1.Template {
	return &messagingv1.Template{
		Id: t.ID, AccountId: t.AccountID, Name: t.Name, Body: t.Body, HtmlBody: t.HTMLBody, Subject: t.Subject, Category: t.Category,
		ChannelType: fromWord[messagingv1.ChannelType](t.ChannelType), Language: t.Language, Variables: t.Variables, DefaultValues: t.DefaultValues,
		FallbackStrategy: fromWord[messagingv1.FallbackStrategy](t.FallbackStrategy), ApprovalStatus: fromWord[messagingv1.TemplateApproval](t.ApprovalStatus),
		ExternalTemplateId: t.ExternalTemplateID, IsActive: t.IsActive, CreatedByUserId: t.CreatedByUserID,
		CreatedAt: stamp(t.CreatedAt), UpdatedAt: stamp(t.UpdatedAt), Attachments: mapAll(t.Attachments, toProtoAttachment),
	}
}

func toProtoAttachment(a *messaging.Attachment) *messagingv1.TemplateAttachment {
	return &messagingv1.TemplateAttachment{
		Id: a.ID, TemplateId: a.TemplateID, Filename: a.Filename, MediaType: a.MediaType, ContentId: a.ContentID, Size: a.Size, CreatedAt: stamp(a.CreatedAt),
	}
}

func toProtoGroup(g *messaging.GroupMessage) *messagingv1.GroupMessage {
	return &messagingv1.GroupMessage{
		Id: g.ID, AccountId: g.AccountID, Name: g.Name, ChannelId: g.ChannelID, TemplateId: g.TemplateID,
		Status: fromWord[messagingv1.GroupMessageStatus](g.Status), ContactGroupIds: g.ContactGroupIDs, ExcludeContactIds: g.ExcludeContactIDs,
		CustomValues: g.CustomValues, Metadata: toStruct(g.Metadata), TotalRecipients: g.Total, PendingCount: g.Pending, SentCount: g.Sent,
		FailedCount: g.Failed, CancelledCount: g.Cancelled, UnknownCount: g.Unknown, SkippedCount: g.Skipped, DeliveredCount: g.Delivered,
		CreatedByUserId: g.CreatedByUserID, ErrorMessage: g.ErrorMessage, StartedAt: stampOrNil(g.StartedAt), CompletedAt: stampOrNil(g.CompletedAt),
		ExcludeContactGroupIds: g.ExcludeContactGroupIDs, AddressCount: g.Addresses, ResendOfId: g.ResendOfID, IncludeUnknown: g.IncludeUnknown,
		ResendStatuses: mapAll(g.Resends(), fromWord[messagingv1.ResendStatus]), BodyErasedAt: stampOrNil(g.BodyErasedAt),
		CreatedAt: stamp(g.CreatedAt), UpdatedAt: stamp(g.UpdatedAt),
	}
}

func toProtoMessage(m *messaging.Message) *messagingv1.Message {
	out := &messagingv1.Message{
		Id: m.ID, AccountId: m.AccountID, ChannelId: m.ChannelID, ContactId: m.ContactID, GroupMessageId: m.GroupMessageID, TemplateId: m.TemplateID,
		Direction: fromWord[messagingv1.MessageDirection](m.Direction), Status: fromWord[messagingv1.MessageStatus](m.Status),
		DeliveryAddress: m.DeliveryAddress, ProviderMessageId: m.ProviderMessageID, Attempts: m.Attempts, SentByUserId: m.SentByUserID,
		Metadata: toStruct(m.Metadata), SentAt: stampOrNil(m.SentAt), DeliveredAt: stampOrNil(m.DeliveredAt), FailedAt: stampOrNil(m.FailedAt),
		Subject: m.Subject, NotAfter: stampOrNil(m.NotAfter), BodyErasedAt: stampOrNil(m.BodyErasedAt), CreatedAt: stamp(m.CreatedAt), UpdatedAt: stamp(m.UpdatedAt),
	}
	if m.Body != nil {
		out.MessageBody = *m.Body
	}
	if len(m.History) > 0 {
		out.AttemptHistory = mapAll(m.History, toProtoAttempt)
	}
	if m.ErrorCode != "" {
		out.Error = &messagingv1.MessageError{Code: m.ErrorCode, ProviderCode: m.ErrorProvider, Message: m.ErrorText}
	}
	return out
}

func toProtoAttempt(a *messaging.Attempt) *messagingv1.MessageAttempt {
	return &messagingv1.MessageAttempt{
		Attempt: a.Attempt, Outcome: a.Outcome, Class: a.Class, ProviderCode: a.Code, Message: a.Text, CreatedAt: stamp(a.CreatedAt),
	}
}

func toProtoSkip(s *messaging.Skip) *messagingv1.SkippedRecipient {
	return &messagingv1.SkippedRecipient{ContactId: s.ContactID, DeliveryAddress: s.Address, Reason: s.Reason, CreatedAt: stamp(s.CreatedAt)}
}

// toStruct reads stored free data; what we stored is always an object. What was stored
// before nesting had a limit is left out where it is beyond: it would make every answer
// unreadable that it is in.
func toStruct(raw []byte) *structpb.Struct {
	if len(raw) == 0 || bounds.TooDeep(raw) {
		return nil
	}
	s := &structpb.Struct{}
	if err := protojson.Unmarshal(raw, s); err != nil {
		return nil
	}
	return s
}
