package server

import (
	"context"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	messagingv1 "github.com/turumba/turumba/gen/turumba/messaging/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/auth"
	"github.com/turumba/turumba/kit/idempotency"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/services/messaging"
	"github.com/turumba/turumba/services/messaging/channel"
)

// CreateMessage implements messagingv1.MessageServiceServer.
func (s *Server) CreateMessage(ctx context.Context, req *messagingv1.CreateMessageRequest) (*messagingv1.CreateMessageResponse, error) {
	accountID, err := auth.ScopeFrom(ctx).Target(req.GetAccountId(), auth.From(ctx))
	if err != nil {
		return nil, err
	}
	m, err := s.compose(ctx, accountID, req)
	if err != nil {
		return nil, s.orReplay(ctx, accountID, err)
	}
	resp := &messagingv1.CreateMessageResponse{}
	err = s.store.DB().InTx(ctx, []string{accountID}, func(tx *pg.Tx) error {
		if err := tx.Idempotent(ctx, accountID); err != nil {
			return err
		}
		if err := s.store.CreateMessages(ctx, tx, []*messaging.Message{m}, quotasOf(ctx, accountID)); err != nil {
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

// orReplay is err, unless the call was answered before: what was good then may be
// refused now, because a template is gone or a time is over.
func (s *Server) orReplay(ctx context.Context, accountID string, err error) error {
	if _, ok := idempotency.From(ctx); !ok {
		return err
	}
	return s.store.DB().InTx(ctx, []string{accountID}, func(tx *pg.Tx) error {
		if replay := tx.Idempotent(ctx, accountID); replay != nil {
			return replay
		}
		return err
	})
}

func (s *Server) compose(ctx context.Context, accountID string, in messageInput) (*messaging.Message, error) {
	c, err := s.newComposer(ctx, accountID, []messageInput{in})
	if err != nil {
		return nil, err
	}
	return c.message(in)
}

// messageInput is what describes one message.
type messageInput interface {
	GetChannelId() string
	GetChannelType() messagingv1.ChannelType
	GetContactId() string
	GetDeliveryAddress() string
	GetMessageBody() string
	GetSubject() string
	GetTemplateId() string
	GetCustomValues() map[string]string
	GetNotAfter() *timestamppb.Timestamp
	GetMetadata() *structpb.Struct
}

// composer makes messages of inputs, from everything that they refer to.
type composer struct {
	adapters          channel.Adapters
	wayOut            func(accountID, channelType, address string) func(messaging.Recipient) string
	accountID, userID string
	now               time.Time
	channels          []*messaging.Channel
	templates         map[string]*messaging.Template
	withFiles         map[string]bool                // templates
	renderers         map[string]*messaging.Renderer // by template or channel
	contacts          map[string]messaging.Recipient
	sources           messaging.Sources
}

// newComposer reads what the inputs refer to: one query for each kind of thing,
// however many inputs there are.
func (s *Server) newComposer(ctx context.Context, accountID string, inputs []messageInput) (*composer, error) {
	c := &composer{
		adapters: s.adapters, wayOut: s.wayOut, accountID: accountID, userID: auth.From(ctx).UserID, now: s.clock.Now().UTC(),
		templates: map[string]*messaging.Template{}, renderers: map[string]*messaging.Renderer{},
	}
	var err error
	types := distinct(inputs, func(in messageInput) string { return toWord(in.GetChannelType()) })
	c.channels, err = s.store.ChannelsFor(ctx, accountID, distinct(inputs, messageInput.GetChannelId), types)
	if err != nil {
		return nil, err
	}
	if err := s.loadTexts(ctx, c, distinct(inputs, messageInput.GetTemplateId)); err != nil {
		return nil, err
	}
	if ids := distinct(inputs, messageInput.GetContactId); len(ids) > 0 {
		if c.contacts, err = s.directory.Contacts(ctx, accountID, ids, c.variables()); err != nil {
			return nil, err
		}
	}
	return c, s.loadSender(ctx, c)
}

// variables are those of all texts.
func (c *composer) variables() (out []string) {
	for _, r := range c.renderers {
		out = append(out, r.Variables()...)
	}
	return out
}

// distinct are the values of inputs, each once, without the empty one.
func distinct(inputs []messageInput, value func(messageInput) string) []string {
	out := make([]string, 0, 1)
	for _, in := range inputs {
		if v := value(in); v != "" {
			out = append(out, v)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// loadTexts parses the templates, and the subject lines of channels that have one.
func (s *Server) loadTexts(ctx context.Context, c *composer, templateIDs []string) error {
	texts := map[string]messaging.Snapshot{}
	for _, channel := range c.channels {
		if line := channel.SubjectTemplate(); line != "" {
			texts[channel.ID] = messaging.Snapshot{Version: messaging.RendererVersion, Subject: line}
		}
	}
	if len(templateIDs) > 0 {
		list, err := s.store.TemplatesFor(ctx, c.accountID, templateIDs)
		if err != nil {
			return err
		}
		if c.withFiles, err = s.store.TemplatesWithFiles(ctx, c.accountID, templateIDs); err != nil {
			return err
		}
		for _, t := range list {
			c.templates[t.ID], texts[t.ID] = t, t.Snapshot()
		}
	}
	for id, text := range texts {
		var err error
		if c.renderers[id], err = messaging.NewRenderer(text); err != nil {
			return err
		}
	}
	return nil
}

// loadSender asks for the names of account and sender where a text may use them.
func (s *Server) loadSender(ctx context.Context, c *composer) error {
	c.sources.Now = c.now
	used := false
	for _, r := range c.renderers {
		used = used || len(r.Variables()) > 0
	}
	if !used {
		return nil
	}
	var err error
	c.sources.AccountName, c.sources.SenderName, c.sources.SenderEmail, err = s.directory.Sender(ctx, c.accountID, c.userID)
	return err
}

// message makes the message of one input, or says what is wrong with it.
func (c *composer) message(in messageInput) (*messaging.Message, error) {
	channel, err := c.channel(in)
	if err != nil {
		return nil, err
	}
	to, address, err := c.recipient(in, channel)
	if err != nil {
		return nil, err
	}
	metadata, err := fromStruct(in.GetMetadata())
	if err != nil {
		return nil, err
	}
	m := &messaging.Message{
		AccountID: c.accountID, ChannelID: channel.ID, ChannelType: channel.ChannelType, ByType: in.GetChannelId() == "", ContactID: in.GetContactId(), TemplateID: in.GetTemplateId(),
		Direction: messaging.DirectionOutbound, Status: messaging.MessageQueued, DeliveryAddress: address, SentByUserID: c.userID, Metadata: metadata,
	}
	if in.GetNotAfter() != nil {
		at := in.GetNotAfter().AsTime()
		if !at.After(c.now) {
			return nil, invalid("not_after", "is over")
		}
		m.NotAfter = &at
	}
	return m, c.write(m, in, channel, to)
}

// channel is the channel named, or the best one of the type.
func (c *composer) channel(in messageInput) (*messaging.Channel, error) {
	if id := in.GetChannelId(); id != "" {
		i := slices.IndexFunc(c.channels, func(ch *messaging.Channel) bool { return ch.ID == id })
		if i < 0 {
			return nil, unresolved(apierr.NotFound("channel"), "channel_id")
		}
		return c.channels[i], nil
	}
	word := toWord(in.GetChannelType())
	if word == "" {
		return nil, channelRequired("channel_id", "channel_id or channel_type is needed")
	}
	channel := messaging.PickChannel(c.channels, word, c.now)
	if channel == nil {
		return nil, channelRequired("channel_type", "the account has no enabled channel of this type")
	}
	return channel, nil
}

func channelRequired(field, message string) error {
	return apierr.New(errorv1.Reason_REASON_CHANNEL_REQUIRED, "a message needs a channel that is enabled").
		WithFields(apierr.Field{Field: field, Message: message})
}

// recipient is who gets the message, and where.
func (c *composer) recipient(in messageInput, channel *messaging.Channel) (to messaging.Recipient, address string, err error) {
	address, field := in.GetDeliveryAddress(), "delivery_address"
	if id := in.GetContactId(); id != "" {
		contact, ok := c.contacts[id]
		if !ok {
			return to, "", unresolved(apierr.NotFound("contact"), "contact_id")
		}
		if to = contact; address == "" {
			address, field = contact.Address(channel.ChannelType), "contact_id"
		}
		if address == "" {
			return to, "", invalid("contact_id", "has no address for "+channel.ChannelType)
		}
	}
	checked, err := messaging.CheckAddress(channel.ChannelType, address, channel.DefaultCountryCode)
	if err != nil {
		return to, "", invalid(field, "is no address for "+channel.ChannelType+": it "+err.Error())
	}
	return to, checked, nil
}

// write gives the message its text.
func (c *composer) write(m *messaging.Message, in messageInput, channel *messaging.Channel, to messaging.Recipient) error {
	compose, err := c.writer(in, channel)
	if err != nil {
		return err
	}
	text := compose(to)
	if err := text.Complete(textField(in)); err != nil {
		return err
	}
	m.Subject, m.Body, m.HTML, m.Values = text.Subject, &text.Text, text.HTML, text.Values
	return nil
}

// capabilities are what the channel's adapter carries.
func (c *composer) capabilities(ch *messaging.Channel) channel.Capabilities {
	return c.adapters.Capabilities(ch.ChannelType, ch.Provider)
}

// textField is the field that makes the text too long or leaves a variable open.
func textField(in messageInput) string {
	if in.GetTemplateId() == "" {
		return "message_body"
	}
	return "custom_values"
}

// writer makes the text of an input for any recipient.
func (c *composer) writer(in messageInput, ch *messaging.Channel) (func(messaging.Recipient) messaging.Composed, error) {
	sources, caps := c.sources, c.capabilities(ch)
	sources.Custom, sources.WayOut = in.GetCustomValues(), c.wayOut(c.accountID, ch.ChannelType, in.GetDeliveryAddress())
	write := func(messaging.Recipient) messaging.Composed {
		return messaging.Plain(ch.ChannelType, caps, in.GetSubject(), in.GetMessageBody())
	}
	if id := in.GetTemplateId(); id != "" {
		t := c.templates[id]
		if t == nil {
			return nil, unresolved(apierr.NotFound("template"), "template_id")
		}
		if err := usable(t, ch); err != nil {
			return nil, err
		}
		if c.withFiles[id] {
			return nil, invalid("template_id", "has files, which only group messages carry")
		}
		text := c.renderers[id].On(caps)
		write = func(to messaging.Recipient) messaging.Composed { return text.Compose(ch.ChannelType, sources, to) }
	}
	line := c.renderers[ch.ID]
	if line == nil {
		return write, nil
	}
	return func(to messaging.Recipient) messaging.Composed {
		text := write(to)
		if text.Subject == "" && text.Excess == "" {
			subject := line.Compose(ch.ChannelType, sources, to)
			text.Subject, text.Excess = subject.Subject, subject.Excess
		}
		return text
	}, nil
}
