package server

import (
	"context"

	accountv1 "github.com/turumba/turumba/gen/turumba/account/v1"
	account "github.com/turumba/turumba/services/account"
)

// GetAccountQuotas implements accountv1.OperatorServiceServer.
func (s *Server) GetAccountQuotas(ctx context.Context, req *accountv1.GetAccountQuotasRequest) (*accountv1.GetAccountQuotasResponse, error) {
	a, err := s.store.Account(ctx, []string{req.GetAccountId()}, req.GetAccountId())
	if err != nil {
		return nil, err
	}
	return &accountv1.GetAccountQuotasResponse{Quotas: s.toProtoQuotas(a)}, nil
}

// UpdateAccountQuotas implements accountv1.OperatorServiceServer.
func (s *Server) UpdateAccountQuotas(ctx context.Context, req *accountv1.UpdateAccountQuotasRequest) (*accountv1.UpdateAccountQuotasResponse, error) {
	id := req.GetAccountId()
	a, err := s.store.UpdateAccount(ctx, []string{id}, id, "account.update_quotas", func(a *account.Account) {
		for _, path := range req.GetUpdateMask().GetPaths() {
			applyQuota(&a.Quotas, req.GetQuotas(), path)
		}
	})
	if err != nil {
		return nil, err
	}
	s.changed()
	return &accountv1.UpdateAccountQuotasResponse{Quotas: s.toProtoQuotas(a)}, nil
}

func applyQuota(q *account.Quotas, u *accountv1.AccountQuotasUpdate, path string) {
	switch path {
	case account.QuotaMessages:
		q.MessagesPerDay = u.MessagesPerDay
	case account.QuotaRecipients:
		q.RecipientsPerCampaign = u.RecipientsPerCampaign
	case account.QuotaContacts:
		q.Contacts = u.Contacts
	case account.QuotaChannels:
		q.Channels = u.Channels
	}
}

func (s *Server) toProtoQuotas(a *account.Account) *accountv1.AccountQuotas {
	own, all := a.Quotas, a.Quotas.Or(s.store.Defaults())
	return &accountv1.AccountQuotas{
		AccountId: a.ID, MessagesPerDay: own.MessagesPerDay, RecipientsPerCampaign: own.RecipientsPerCampaign, Contacts: own.Contacts, Channels: own.Channels,
		Effective: &accountv1.Quotas{
			MessagesPerDay: orNone(all.MessagesPerDay), RecipientsPerCampaign: orNone(all.RecipientsPerCampaign),
			Contacts: orNone(all.Contacts), Channels: orNone(all.Channels),
		},
	}
}

func orNone(limit *int32) int32 {
	if limit == nil {
		return 0
	}
	return *limit
}

// toProtoLimits are quotas by their names.
func toProtoLimits(q map[string]int64) *accountv1.Quotas {
	return &accountv1.Quotas{
		MessagesPerDay: int32(q[account.QuotaMessages]), RecipientsPerCampaign: int32(q[account.QuotaRecipients]),
		Contacts: int32(q[account.QuotaContacts]), Channels: int32(q[account.QuotaChannels]),
	}
}
