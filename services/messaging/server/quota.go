package server

import (
	"context"
	"math"
	"slices"

	"google.golang.org/protobuf/types/known/timestamppb"

	messagingv1 "github.com/turumba/turumba/gen/turumba/messaging/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/auth"
	"github.com/turumba/turumba/services/messaging"
	"github.com/turumba/turumba/services/messaging/postgres"
)

// quotasOf are the limits of an account of the caller, who carries them: they are as old
// as his permissions are.
func quotasOf(ctx context.Context, accountID string) messaging.Quotas {
	m, _ := auth.From(ctx).Membership(accountID)
	return m.Quotas
}

// allowance is what a send is held to. The members of its groups are counted only where
// that could refuse it.
func (s *Server) allowance(ctx context.Context, g *messaging.GroupMessage) (a messaging.Allowance, err error) {
	a.Quotas = quotasOf(ctx, g.AccountID)
	if most := a.Quotas.CountMembers(); most > 0 && len(g.ContactGroupIDs) > 0 {
		a.Members, err = s.directory.CountMembers(ctx, g.AccountID, g.ContactGroupIDs, most)
	}
	return a, err
}

// GetQuotaUsage implements messagingv1.QuotaServiceServer.
func (s *Server) GetQuotaUsage(ctx context.Context, req *messagingv1.GetQuotaUsageRequest) (*messagingv1.GetQuotaUsageResponse, error) {
	id := req.GetAccountId()
	if !slices.Contains(auth.ScopeFrom(ctx), id) {
		return nil, apierr.NotFound("account")
	}
	channels, err := s.store.ChannelCount(ctx, id)
	if err != nil {
		return nil, err
	}
	contacts, err := s.directory.ContactCount(ctx, id)
	if err != nil {
		return nil, err
	}
	q := quotasOf(ctx, id)
	messages, err := s.messageUsage(ctx, id, q)
	if err != nil {
		return nil, err
	}
	return &messagingv1.GetQuotaUsageResponse{Usage: &messagingv1.QuotaUsage{
		AccountId: id, MessagesPerDay: messages, RecipientsPerCampaign: &messagingv1.Usage{Limit: number(q[messaging.QuotaRecipients])},
		Contacts: usage(q[messaging.QuotaContacts], contacts), Channels: usage(q[messaging.QuotaChannels], channels),
	}}, nil
}

// messageUsage is that of the day, which is counted only where there is a limit.
func (s *Server) messageUsage(ctx context.Context, accountID string, q messaging.Quotas) (*messagingv1.Usage, error) {
	daily := postgres.MessageQuota(q)
	if daily.Most == 0 {
		return &messagingv1.Usage{}, nil
	}
	used, err := s.store.MessagesToday(ctx, accountID)
	if err != nil {
		return nil, err
	}
	out := usage(daily.Most, used)
	out.ResetsAt = timestamppb.New(daily.Resets(s.clock.Now()))
	return out, nil
}

func usage(limit, used int64) *messagingv1.Usage {
	n := number(used)
	return &messagingv1.Usage{Limit: number(limit), Used: &n}
}

// number is n as the contract has it.
func number(n int64) int32 { return int32(min(max(n, 0), math.MaxInt32)) }
