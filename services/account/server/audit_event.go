package server

import (
	"context"

	accountv1 "github.com/turumba/turumba/gen/turumba/account/v1"
	"github.com/turumba/turumba/kit/auth"
	"github.com/turumba/turumba/kit/query"
	account "github.com/turumba/turumba/services/account"
)

// GetAuditEvent implements accountv1.AuditEventServiceServer.
func (s *Server) GetAuditEvent(ctx context.Context, req *accountv1.GetAuditEventRequest) (*accountv1.GetAuditEventResponse, error) {
	e, err := s.store.AuditEvent(ctx, auth.ScopeFrom(ctx), req.GetAuditEventId())
	if err != nil {
		return nil, err
	}
	return &accountv1.GetAuditEventResponse{AuditEvent: toProtoAuditEvent(e)}, nil
}

// ListAuditEvents implements accountv1.AuditEventServiceServer.
func (s *Server) ListAuditEvents(ctx context.Context, req *accountv1.ListAuditEventsRequest) (*accountv1.ListAuditEventsResponse, error) {
	page, err := s.store.AuditEvents(ctx, auth.ScopeFrom(ctx), query.RequestOf(req))
	if err != nil {
		return nil, err
	}
	return &accountv1.ListAuditEventsResponse{Data: mapAll(page.Data, toProtoAuditEvent), Meta: page.Meta}, nil
}

func toProtoAuditEvent(e *account.AuditEvent) *accountv1.AuditEvent {
	return &accountv1.AuditEvent{
		Id: e.ID, AccountId: e.AccountID, Action: e.Action, ResourceType: e.ResourceType, ResourceId: e.ResourceID,
		ActorUserId: e.ActorUserID, ActorApiKeyId: e.ActorAPIKeyID, Ip: e.IP, UserAgent: e.UserAgent, RequestId: e.RequestID,
		Changes: toStruct(e.Changes), Outcome: toProtoOutcome(e.Outcome), CreatedAt: stamp(e.CreatedAt),
	}
}

func toProtoOutcome(o account.AuditOutcome) accountv1.AuditOutcome {
	switch o {
	case account.AuditSucceeded:
		return accountv1.AuditOutcome_AUDIT_OUTCOME_SUCCEEDED
	case account.AuditPending:
		return accountv1.AuditOutcome_AUDIT_OUTCOME_PENDING
	case account.AuditFailed:
		return accountv1.AuditOutcome_AUDIT_OUTCOME_FAILED
	case account.AuditUnknown:
		return accountv1.AuditOutcome_AUDIT_OUTCOME_UNKNOWN
	}
	return accountv1.AuditOutcome_AUDIT_OUTCOME_UNSPECIFIED
}
