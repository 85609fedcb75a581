package server

import (
	"context"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	messagingv1 "github.com/turumba/turumba/gen/turumba/messaging/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/auth"
	"github.com/turumba/turumba/services/messaging"
)

// EstimateMessage implements messagingv1.MessageServiceServer.
func (s *Server) EstimateMessage(ctx context.Context, req *messagingv1.EstimateMessageRequest) (*messagingv1.EstimateMessageResponse, error) {
	accountID, err := auth.ScopeFrom(ctx).Target(req.GetAccountId(), auth.From(ctx))
	if err != nil {
		return nil, err
	}
	text := &messagingv1.MessageInput{
		ChannelId: req.GetChannelId(), ChannelType: req.GetChannelType(), MessageBody: req.GetMessageBody(),
		TemplateId: req.GetTemplateId(), CustomValues: req.GetCustomValues(),
	}
	to := estimateRecipients(req)
	c, err := s.newComposer(ctx, accountID, append([]messageInput{text}, to...))
	if err != nil {
		return nil, err
	}
	channel, err := c.estimateChannel(text)
	if err != nil {
		return nil, err
	}
	known, err := c.estimateAddresses(to, channel)
	if err != nil {
		return nil, err
	}
	suppressed, err := s.store.Suppressed(ctx, accountID, channel.ChannelType, mapAll(known, func(r estimated) string { return r.key }))
	if err != nil {
		return nil, err
	}
	e, err := c.estimate(text, channel, known, suppressed)
	if err != nil {
		return nil, err
	}
	return toProtoEstimate(e), nil
}

// estimated is a recipient of an estimate: the key of the address, or why there is
// none.
type estimated struct {
	in          messageInput
	to          messaging.Recipient
	key, reason string
}

// estimateRecipients is one input for each recipient, with nothing but who it is.
func estimateRecipients(req *messagingv1.EstimateMessageRequest) []messageInput {
	out := make([]messageInput, 0, len(req.GetContactIds())+len(req.GetDeliveryAddresses()))
	for _, id := range req.GetContactIds() {
		out = append(out, &messagingv1.MessageInput{ContactId: id})
	}
	for _, address := range req.GetDeliveryAddresses() {
		out = append(out, &messagingv1.MessageInput{DeliveryAddress: address})
	}
	return out
}

// estimate measures the text for each recipient, or alone where there is none.
func (c *composer) estimate(text messageInput, channel *messaging.Channel, to []estimated, suppressed map[string]bool) (*messaging.Estimate, error) {
	write, err := c.writer(text, channel)
	if err != nil {
		return nil, err
	}
	e := messaging.NewEstimate(channel.ChannelType)
	if len(to) == 0 {
		alone := write(messaging.Recipient{})
		alone.Skip = false // there is nobody to leave out
		e.Miss(alone.Unresolved)
		e.Measure(alone.Rendered)
		e.Sample = alone.Rendered
		return e, alone.Complete(textField(text))
	}
	for _, r := range to {
		if suppressed[r.key] {
			r.reason = messaging.SkipOptedOut
		}
		estimateOne(e, r, write)
		if e.Bytes > maxBatchText {
			return nil, apierr.New(errorv1.Reason_REASON_PAYLOAD_TOO_LARGE, "the texts of an estimate have together at most %d MiB", maxBatchText>>20)
		}
	}
	return e, nil
}

// estimateOne takes one recipient into the estimate.
func estimateOne(e *messaging.Estimate, r estimated, write func(messaging.Recipient) messaging.Composed) {
	var text messaging.Composed
	if r.reason == "" {
		text = write(r.to)
		e.Miss(text.Unresolved)
		r.reason = text.SkipReason()
	}
	if r.reason != "" {
		e.Skip(r.in.GetContactId(), r.in.GetDeliveryAddress(), r.reason)
		return
	}
	e.Add(text.Rendered)
}

// estimateChannel is the channel that would send; of a type that the account has no
// channel of, one that knows nothing more.
func (c *composer) estimateChannel(text messageInput) (*messaging.Channel, error) {
	if word := toWord(text.GetChannelType()); word != "" && messaging.PickChannel(c.channels, word, c.now) == nil {
		return &messaging.Channel{ChannelType: word}, nil
	}
	return c.channel(text)
}

// estimateAddresses finds where each recipient would be reached, once for each
// address.
func (c *composer) estimateAddresses(to []messageInput, channel *messaging.Channel) ([]estimated, error) {
	seen := map[string]bool{}
	out := make([]estimated, len(to))
	for i, in := range to {
		r := estimated{in: in}
		address := in.GetDeliveryAddress()
		if id := in.GetContactId(); id != "" {
			contact, ok := c.contacts[id]
			if !ok {
				return nil, unresolved(apierr.NotFound("contact"), "contact_ids")
			}
			r.to, address = contact, contact.Address(channel.ChannelType)
		}
		checked, err := messaging.CheckAddress(channel.ChannelType, address, channel.DefaultCountryCode)
		key := messaging.AddressKey(channel.ChannelType, checked)
		switch {
		case address == "":
			r.reason = messaging.SkipNoAddress
		case err != nil:
			r.reason = messaging.SkipInvalidAddress
		case seen[key]:
			r.reason = messaging.SkipDuplicateAddress
		default:
			r.key, seen[key] = key, true
		}
		out[i] = r
	}
	return out, nil
}

func toProtoEstimate(e *messaging.Estimate) *messagingv1.EstimateMessageResponse {
	return &messagingv1.EstimateMessageResponse{
		Encoding: fromWord[messagingv1.MessageEncoding](string(e.Encoding)), Units: int32(e.Units), Segments: int32(e.Segments),
		TotalSegments: int32(e.Total), Recipients: int32(e.Recipients), Unresolved: e.Unresolved,
		Skipped: mapAll(e.Skipped, func(s messaging.EstimateSkip) *messagingv1.EstimateSkip {
			return &messagingv1.EstimateSkip{ContactId: s.ContactID, DeliveryAddress: s.Address, Reason: s.Reason}
		}),
		Subject: e.Sample.Subject, MessageBody: e.Sample.Text,
	}
}
