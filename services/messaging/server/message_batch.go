package server

import (
	"context"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	messagingv1 "github.com/turumba/turumba/gen/turumba/messaging/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/auth"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/rules"
	"github.com/turumba/turumba/services/messaging"
)

// maxBatchText is the most text of one batch, rendered, in bytes: a short request
// must not become a thousand long rows.
const maxBatchText = 8 << 20

// BatchCreateMessages implements messagingv1.MessageServiceServer.
func (s *Server) BatchCreateMessages(ctx context.Context, req *messagingv1.BatchCreateMessagesRequest) (*messagingv1.BatchCreateMessagesResponse, error) {
	accountID, err := auth.ScopeFrom(ctx).Target(req.GetAccountId(), auth.From(ctx))
	if err != nil {
		return nil, err
	}
	resp := &messagingv1.BatchCreateMessagesResponse{Results: make([]*messagingv1.BatchCreateMessagesResult, len(req.GetMessages()))}
	good := validItems(req.GetMessages(), resp)
	c, err := s.newComposer(ctx, accountID, mapAll(good, func(i int) messageInput { return req.GetMessages()[i] }))
	if err != nil {
		return nil, s.orReplay(ctx, accountID, err)
	}
	b, err := c.batch(req.GetMessages(), good, resp)
	if err != nil {
		return nil, s.orReplay(ctx, accountID, err)
	}
	err = s.store.DB().InTx(ctx, []string{accountID}, func(tx *pg.Tx) error {
		if err := tx.Idempotent(ctx, accountID); err != nil {
			return err
		}
		if err := s.store.CreateMessages(ctx, tx, b.messages, quotasOf(ctx, accountID)); err != nil {
			return err
		}
		for i, m := range b.messages {
			resp.Results[b.at[i]] = messageResult(m, nil)
		}
		return tx.Respond(ctx, resp)
	})
	if err != nil {
		return nil, err
	}
	return resp, nil
}

// messageBatch is the good items of a batch and where they stand in it.
type messageBatch struct {
	messages []*messaging.Message
	at       []int
}

// validItems are the places of the items that keep to the rules of the contract; others have
// their result at once.
func validItems(items []*messagingv1.MessageInput, resp *messagingv1.BatchCreateMessagesResponse) (good []int) {
	for i, item := range items {
		if err := rules.Check(item); err != nil {
			resp.Results[i] = messageResult(nil, err)
			continue
		}
		good = append(good, i)
	}
	return good
}

// batch makes the good messages; those with an error have their result at once.
func (c *composer) batch(items []*messagingv1.MessageInput, good []int, resp *messagingv1.BatchCreateMessagesResponse) (messageBatch, error) {
	var b messageBatch
	size := 0
	for _, i := range good {
		m, err := c.message(items[i])
		if err != nil {
			resp.Results[i] = messageResult(nil, err)
			continue
		}
		if size += len(m.Subject) + len(*m.Body) + len(m.HTML); size > maxBatchText {
			return b, apierr.New(errorv1.Reason_REASON_PAYLOAD_TOO_LARGE, "the texts of a batch have together at most %d MiB", maxBatchText>>20)
		}
		b.messages, b.at = append(b.messages, m), append(b.at, i)
	}
	return b, nil
}

func messageResult(m *messaging.Message, err error) *messagingv1.BatchCreateMessagesResult {
	if err == nil {
		out := toProtoMessage(m)
		out.MessageBody, out.Subject = "", ""
		return &messagingv1.BatchCreateMessagesResult{Message: out}
	}
	return &messagingv1.BatchCreateMessagesResult{Code: apierr.Name(apierr.From(err).Reason), Detail: rules.Detail(err)}
}
