package server

import (
	"context"
	"strings"

	messagingv1 "github.com/turumba/turumba/gen/turumba/messaging/v1"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/services/messaging"
)

// Unsubscribe implements messagingv1.SuppressionServiceServer.
func (s *Server) Unsubscribe(ctx context.Context, req *messagingv1.UnsubscribeRequest) (*messagingv1.UnsubscribeResponse, error) {
	token := req.GetToken()
	who, err := s.unsubscriber.Open(token[strings.LastIndexByte(token, '/')+1:])
	if err != nil {
		return nil, err
	}
	resp := &messagingv1.UnsubscribeResponse{ChannelType: fromWord[messagingv1.ChannelType](who.ChannelType)}
	if req.GetCheckOnly() {
		return resp, nil
	}
	err = s.store.DB().InTx(ctx, []string{who.AccountID}, func(tx *pg.Tx) error {
		return s.store.EnsureSuppression(ctx, tx, &messaging.Suppression{
			ID: messaging.NewID(), AccountID: who.AccountID, ChannelType: who.ChannelType, Address: who.Address, Reason: messaging.SuppressedUnsubscribe,
		})
	})
	if err != nil {
		return nil, err
	}
	return resp, nil
}

// wayOut makes the links of a text's recipients; address is who is written to without
// being a contact.
func (s *Server) wayOut(accountID, channelType, address string) func(messaging.Recipient) string {
	return func(r messaging.Recipient) string {
		to := r.Address(channelType)
		if address != "" {
			to = address
		}
		return s.unsubscriber.URL(messaging.WayOut{AccountID: accountID, ChannelType: channelType, Address: to})
	}
}
