package server

import (
	"context"
	"errors"
	"slices"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	messagingv1 "github.com/turumba/turumba/gen/turumba/messaging/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/auth"
	"github.com/turumba/turumba/services/messaging"
	"github.com/turumba/turumba/services/messaging/postgres"
)

var errDryEnough = errors.New("the dry run has looked as long as it may")

// DryRunGroupMessage implements messagingv1.GroupMessageServiceServer.
func (s *Server) DryRunGroupMessage(ctx context.Context, req *messagingv1.DryRunGroupMessageRequest) (*messagingv1.DryRunGroupMessageResponse, error) {
	g, err := newGroup(ctx, req)
	if err != nil {
		return nil, err
	}
	c, t, err := s.references(ctx, g, req)
	if err != nil {
		return nil, err
	}
	return s.dryRun(ctx, g, c, t, mapAll(req.GetRecipients(), fromAddressRecipient))
}

// DryRunDraft implements messagingv1.GroupMessageServiceServer.
func (s *Server) DryRunDraft(ctx context.Context, req *messagingv1.DryRunDraftRequest) (*messagingv1.DryRunDraftResponse, error) {
	g, err := s.store.GroupMessage(ctx, auth.ScopeFrom(ctx), req.GetGroupMessageId())
	if err != nil {
		return nil, err
	}
	if err := g.MayChange(); err != nil {
		return nil, err
	}
	c, t, err := s.references(ctx, g, stored{})
	if err != nil {
		return nil, err
	}
	var to []messaging.Recipient
	err = s.store.AddressRecipients(ctx, g, "", postgres.MaxChunk, func(part []messaging.Recipient) error {
		to = append(to, part...)
		return nil
	})
	if err != nil {
		return nil, err
	}
	resp, err := s.dryRun(ctx, g, c, t, to)
	if err != nil {
		return nil, err
	}
	return &messagingv1.DryRunDraftResponse{DryRun: resp}, nil
}

// dryRun looks at the audience of a send with these recipients by address.
func (s *Server) dryRun(ctx context.Context, g *messaging.GroupMessage, c *messaging.Channel, t *messaging.Template, to []messaging.Recipient) (*messagingv1.DryRunGroupMessageResponse, error) {
	a, err := s.audience(ctx, g, c, t)
	if err != nil {
		return nil, err
	}
	d := messaging.NewDryRun(a, s.clock.Now())
	err = s.look(ctx, g, to, a, d)
	d.Complete = err == nil
	if err != nil && !errors.Is(err, errDryEnough) {
		return nil, err
	}
	if d.Samples, err = s.readable(ctx, g.AccountID, d.Samples); err != nil {
		return nil, err
	}
	resp := toProtoDryRun(d)
	if wait, ok := c.BulkTime(d.Recipients); ok && d.Complete {
		resp.ExpectedFinish = stamp(s.clock.Now().Add(wait))
	}
	return resp, nil
}

// audience decides who would get a message if the send began now.
func (s *Server) audience(ctx context.Context, g *messaging.GroupMessage, c *messaging.Channel, t *messaging.Template) (*messaging.Audience, error) {
	renderer, err := messaging.NewRenderer(t.Snapshot().WithSubject(c.SubjectTemplate()))
	if err != nil {
		return nil, err
	}
	account, sender, email, err := s.directory.Sender(ctx, g.AccountID, g.CreatedByUserID)
	if err != nil && !apierr.HasReason(err, errorv1.Reason_REASON_NOT_FOUND) {
		return nil, err
	}
	sources := messaging.Sources{Custom: g.CustomValues, AccountName: account, SenderName: sender, SenderEmail: email, Now: s.clock.Now(), WayOut: s.wayOut(g.AccountID, c.ChannelType, "")}
	return messaging.NewAudience(g, c.ChannelType, c.DefaultCountryCode, renderer.On(s.adapters.Capabilities(c.ChannelType, c.Provider)), sources), nil
}

// look goes through the recipients as the fan-out does: those by address, then the
// members of the groups.
func (s *Server) look(ctx context.Context, g *messaging.GroupMessage, to []messaging.Recipient, a *messaging.Audience, d *messaging.DryRun) error {
	stretch := func(list []messaging.Recipient) error {
		taken, skips, err := a.Sort(list, func(keys []string) (map[string]bool, error) {
			return s.store.Suppressed(ctx, g.AccountID, d.ChannelType, keys)
		})
		if err != nil {
			return err
		}
		if d.Take(taken, skips); d.Enough(s.clock.Now()) {
			return errDryEnough
		}
		return nil
	}
	for i, id := range messaging.IDsAt(s.clock.Now(), 0, len(to)) {
		to[i].AddressID = id
	}
	for part := range slices.Chunk(to, postgres.MaxChunk) {
		if err := stretch(part); err != nil {
			return err
		}
	}
	if len(g.ContactGroupIDs) == 0 {
		return nil
	}
	members := func(groupIDs []string) func(func([]messaging.Recipient) error) error {
		return func(each func([]messaging.Recipient) error) error {
			return s.directory.Recipients(ctx, g.AccountID, groupIDs, "", postgres.MaxChunk, each)
		}
	}
	if len(g.ExcludeContactGroupIDs) > 0 {
		a.Left = messaging.WalkMembers(members(g.ExcludeContactGroupIDs))
		defer a.Left.Stop()
	}
	return members(g.ContactGroupIDs)(stretch)
}

// readable keeps the samples of contacts whom the caller may read: the send itself asks
// for no such right.
func (s *Server) readable(ctx context.Context, accountID string, samples []messaging.Sample) ([]messaging.Sample, error) {
	var ids []string
	for _, sample := range samples {
		if sample.To.ContactID != "" {
			ids = append(ids, sample.To.ContactID)
		}
	}
	if len(ids) == 0 {
		return samples, nil
	}
	contacts, err := s.directory.Contacts(ctx, accountID, ids, nil)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(samples, func(sample messaging.Sample) bool {
		_, ok := contacts[sample.To.ContactID]
		return sample.To.ContactID != "" && !ok
	}), nil
}

func toProtoDryRun(d *messaging.DryRun) *messagingv1.DryRunGroupMessageResponse {
	resp := &messagingv1.DryRunGroupMessageResponse{
		Recipients: int32(d.Recipients), Skipped: counted(d.Skips), Unresolved: counted(d.Missing), Complete: d.Complete,
		Encoding: fromWord[messagingv1.MessageEncoding](string(d.Encoding)), Units: int32(d.Units), Segments: int32(d.Segments), TotalSegments: int32(d.Total),
		Samples: mapAll(d.Samples, func(sample messaging.Sample) *messagingv1.DryRunSample {
			return &messagingv1.DryRunSample{
				ContactId: sample.To.ContactID, DeliveryAddress: sample.To.Address, Subject: sample.Text.Subject, MessageBody: sample.Text.Text, HtmlBody: sample.Text.HTML,
			}
		}),
	}
	for _, n := range resp.Skipped {
		resp.SkippedCount += n
	}
	return resp
}

func counted(in map[string]int) map[string]int32 {
	out := make(map[string]int32, len(in))
	for name, n := range in {
		out[name] = int32(n)
	}
	return out
}
