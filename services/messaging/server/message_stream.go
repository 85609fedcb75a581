package server

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	messagingv1 "github.com/turumba/turumba/gen/turumba/messaging/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/auth"
	"github.com/turumba/turumba/kit/idempotency"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/quota"
	"github.com/turumba/turumba/kit/streams"
	"github.com/turumba/turumba/services/messaging"
)

const (
	// maxStreamItems and maxStreamBytes are the most messages of one stream, and their
	// size as they arrive.
	maxStreamItems = 100_000
	maxStreamBytes = 256 << 20
	// maxStreamItem is the most bytes of one message as it arrives.
	maxStreamItem = 256 << 10
	// maxStored is the most messages of one transaction.
	maxStored = 500
	// maxWaiting is how many messages wait while others are stored. A client that is
	// faster is held up by the flow control of its stream.
	maxWaiting = 64
	// maxGathered is the most bytes of the messages of one transaction as they arrived.
	maxGathered = 4 << 20
	// maxResults is the most bytes of the results, so that the answer fits into the
	// 4 MiB that clients take.
	maxResults = 3 << 20
)

// SendMessages implements messagingv1.MessageServiceServer.
func (s *Server) SendMessages(stream grpc.ClientStreamingServer[messagingv1.SendMessagesRequest, messagingv1.SendMessagesResponse]) error {
	ctx := stream.Context()
	first, err := stream.Recv()
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if first.GetSettings() == nil {
		return invalid("settings", "must be the first message")
	}
	accountID, err := auth.ScopeFrom(ctx).Target(first.GetSettings().GetAccountId(), auth.From(ctx))
	if err != nil {
		return err
	}
	if err := streams.Settle(ctx, accountID); err != nil {
		return err
	}
	in := &streamReader{items: make(chan *streamItem, maxWaiting)}
	if r, ok := idempotency.From(ctx); ok {
		in.callKey = r.Key
	}
	go in.read(ctx, stream)
	out := &messageStream{s: s, accountID: accountID, resp: &messagingv1.SendMessagesResponse{}}
	for {
		items, err := in.gather(ctx)
		if errors.Is(err, io.EOF) {
			return stream.SendAndClose(out.resp)
		}
		if err != nil {
			return err
		}
		if err := out.store(ctx, items); err != nil {
			return err
		}
	}
}

// streamItem is one message of a stream and its result.
type streamItem struct {
	key    pg.KeyedRequest
	input  *messagingv1.MessageInput // nil where the item is refused
	size   int
	result *messagingv1.SendMessagesResult
}

// refuse gives the item its error.
func (i *streamItem) refuse(err error) {
	r := messageResult(nil, err)
	i.result.Code, i.result.Detail, i.input = r.GetCode(), r.GetDetail(), nil
}

// streamReader takes the items of a stream while earlier ones are stored.
type streamReader struct {
	callKey string // Idempotency-Key of the call
	items   chan *streamItem
	err     error // why items is closed
	next    *streamItem
	n, size int
}

// read takes items until the stream ends; a handler that returned ends it too.
func (r *streamReader) read(ctx context.Context, stream grpc.ClientStreamingServer[messagingv1.SendMessagesRequest, messagingv1.SendMessagesResponse]) {
	defer close(r.items)
	for {
		item, err := r.item(stream.Recv())
		if err != nil {
			r.err = err
			return
		}
		select {
		case r.items <- item:
		case <-ctx.Done():
			r.err = context.Cause(ctx)
			return
		}
	}
}

// item is what came. A message that breaks the contract is refused alone.
func (r *streamReader) item(req *messagingv1.SendMessagesRequest, err error) (*streamItem, error) {
	broken := apierr.From(err)
	switch {
	case err != nil && broken.Reason != errorv1.Reason_REASON_VALIDATION_FAILED:
		return nil, err
	case req.GetSettings() != nil:
		return nil, invalid("settings", "must be in the first message only")
	case r.n == maxStreamItems:
		return nil, apierr.New(errorv1.Reason_REASON_PAYLOAD_TOO_LARGE, "a stream takes at most %d messages; those are stored", maxStreamItems)
	}
	item := &streamItem{result: &messagingv1.SendMessagesResult{Index: int32(r.n)}}
	r.n++
	if req == nil {
		item.refuse(ofItem(broken))
		return item, nil
	}
	item.input, item.size = req.GetItem().GetMessage(), proto.Size(req)
	if r.size += item.size; r.size > maxStreamBytes {
		return nil, apierr.New(errorv1.Reason_REASON_PAYLOAD_TOO_LARGE, "a stream takes at most %d MiB; what came before is stored", maxStreamBytes>>20)
	}
	return item, r.identify(item, req.GetItem().GetIdempotencyKey())
}

// ofItem names the fields of an item as in the item.
func ofItem(e *apierr.Error) error {
	fields := make([]apierr.Field, len(e.Fields))
	for i, f := range e.Fields {
		fields[i] = apierr.Field{Field: strings.TrimPrefix(f.Field, "item."), Message: f.Message}
	}
	return apierr.New(e.Reason, "%s", e.Message).WithFields(fields...)
}

// identify gives the item its key.
func (r *streamReader) identify(item *streamItem, key string) error {
	if key == "" && r.callKey != "" {
		key = fmt.Sprintf("%s/%d", r.callKey, item.result.GetIndex())
	}
	switch {
	case item.size > maxStreamItem:
		item.refuse(apierr.New(errorv1.Reason_REASON_PAYLOAD_TOO_LARGE, "a message of a stream has at most %d KiB", maxStreamItem>>10))
		return nil
	case key == "":
		item.refuse(invalid("idempotency_key", "is needed where the call has no Idempotency-Key"))
		return nil
	}
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(item.input)
	if err != nil {
		return fmt.Errorf("hash a message: %w", err)
	}
	sum := sha256.Sum256(b)
	item.key = pg.KeyedRequest{Key: key, Hash: sum[:]}
	return nil
}

// gather waits for an item and takes what has come besides, up to what one transaction
// stores; io.EOF after the last one. No key is in it twice.
func (r *streamReader) gather(ctx context.Context) ([]*streamItem, error) {
	var list []*streamItem
	keys, size := map[string]bool{}, 0
	for len(list) < maxStored && size < maxGathered {
		item, err := r.take(ctx, len(list) == 0)
		if err != nil {
			return nil, err
		}
		if item == nil {
			break
		}
		if keys[item.key.Key] {
			r.next = item
			break
		}
		keys[item.key.Key] = item.key.Key != ""
		list, size = append(list, item), size+item.size
	}
	return list, nil
}

// take is the next item; nil where none is there and it shall not wait, and where the
// stream has ended but items before it are not stored yet.
func (r *streamReader) take(ctx context.Context, wait bool) (*streamItem, error) {
	if item := r.next; item != nil {
		r.next = nil
		return item, nil
	}
	if !wait {
		select {
		case item := <-r.items:
			return item, nil
		default:
			return nil, nil
		}
	}
	select {
	case item, ok := <-r.items:
		if !ok {
			return nil, r.err
		}
		return item, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// messageStream stores what comes and keeps the answer.
type messageStream struct {
	s         *Server
	accountID string
	resp      *messagingv1.SendMessagesResponse
	size      int // of the results
}

// store makes messages of the items that are good and new.
func (st *messageStream) store(ctx context.Context, items []*streamItem) error {
	fresh, err := st.replay(ctx, items)
	if err != nil {
		return err
	}
	if err := st.create(ctx, fresh); err != nil {
		return err
	}
	for _, item := range items {
		st.answer(item.result)
	}
	return nil
}

// answer keeps a result, while there is room.
func (st *messageStream) answer(r *messagingv1.SendMessagesResult) {
	if r.GetCode() != "" {
		st.resp.RejectedCount++
	}
	const overhead = 4 // tag and length in the answer
	if st.size += proto.Size(r) + overhead; st.size > maxResults {
		st.resp.OmittedCount++
		return
	}
	st.resp.Results = append(st.resp.Results, r)
}

// replay answers items whose key was used before; the others are left. It comes before
// all checks, since what was good then may be refused now.
func (st *messageStream) replay(ctx context.Context, items []*streamItem) (fresh []*streamItem, err error) {
	good := goodItems(items)
	if len(good) == 0 {
		return nil, nil
	}
	used, err := st.s.store.DB().ReplayKeys(ctx, st.accountID, messagingv1.MessageService_SendMessages_FullMethodName, keysOf(good))
	if err != nil {
		return nil, err
	}
	return good, st.replayed(good, used)
}

// replayed gives items the answer of their keys.
func (st *messageStream) replayed(items []*streamItem, used map[string]error) error {
	for _, item := range items {
		err := used[item.key.Key]
		var replay *pg.ReplayError
		switch {
		case err == nil:
			continue
		case !errors.As(err, &replay):
			item.refuse(err)
			continue
		}
		stored := &messagingv1.SendMessagesResult{}
		if err := replay.Response.UnmarshalTo(stored); err != nil {
			return fmt.Errorf("read a stored response: %w", err)
		}
		item.result.MessageId, item.input = stored.GetMessageId(), nil
		st.resp.ReplayedCount++
	}
	return nil
}

func goodItems(items []*streamItem) (good []*streamItem) {
	for _, item := range items {
		if item.input != nil {
			good = append(good, item)
		}
	}
	return good
}

func keysOf(items []*streamItem) []pg.KeyedRequest {
	return mapAll(items, func(i *streamItem) pg.KeyedRequest { return i.key })
}

// create makes messages of what is left of the items, in transactions of bounded text.
func (st *messageStream) create(ctx context.Context, items []*streamItem) error {
	items = goodItems(items)
	if len(items) == 0 {
		return nil
	}
	c, err := st.s.newComposer(ctx, st.accountID, mapAll(items, func(i *streamItem) messageInput { return i.input }))
	if err != nil {
		return err
	}
	messages, first, size := map[string]*messaging.Message{}, 0, 0
	for i, item := range items {
		m, err := c.message(item.input)
		if err != nil {
			item.refuse(err)
			continue
		}
		messages[item.key.Key] = m
		if size += len(m.Subject) + len(*m.Body) + len(m.HTML); size > maxBatchText {
			if err := st.insert(ctx, items[first:i+1], messages); err != nil {
				return err
			}
			messages, first, size = map[string]*messaging.Message{}, i+1, 0
		}
	}
	return st.insert(ctx, items[first:], messages)
}

// insert stores the messages of items by their keys. A stream that sends the same ones
// at the same time waits here, and gets the ids of the first. What is more than the
// account may send today is refused, item by item, so that its key can be used tomorrow.
func (st *messageStream) insert(ctx context.Context, items []*streamItem, messages map[string]*messaging.Message) error {
	for items = goodItems(items); len(items) > 0; items = goodItems(items) {
		used, err := st.insertAll(ctx, items, messages)
		if apierr.HasReason(err, errorv1.Reason_REASON_QUOTA_EXCEEDED) {
			refuseAbove(items, used, quota.Left(err), err)
			continue
		}
		if err != nil {
			return err
		}
		return st.inserted(items, messages, used)
	}
	return nil
}

// refuseAbove refuses the items that are new, but for the first that there is room for.
func refuseAbove(items []*streamItem, used map[string]error, room int64, err error) {
	for _, item := range items {
		switch {
		case used[item.key.Key] != nil:
		case room > 0:
			room--
		default:
			item.refuse(err)
		}
	}
}

// insertAll stores the messages of items, or none. used are the items that were stored
// before.
func (st *messageStream) insertAll(ctx context.Context, items []*streamItem, messages map[string]*messaging.Message) (used map[string]error, err error) {
	const method = messagingv1.MessageService_SendMessages_FullMethodName
	err = st.s.store.DB().InTx(ctx, []string{st.accountID}, func(tx *pg.Tx) (err error) {
		if used, err = tx.IdempotentKeys(ctx, st.accountID, method, keysOf(items)); err != nil {
			return err
		}
		var list []*messaging.Message
		for _, item := range items {
			if used[item.key.Key] == nil {
				list = append(list, messages[item.key.Key])
			}
		}
		if err := st.s.store.CreateMessages(ctx, tx, list, quotasOf(ctx, st.accountID)); err != nil {
			return err
		}
		responses := map[string]proto.Message{}
		for _, item := range items {
			if used[item.key.Key] == nil {
				responses[item.key.Key] = &messagingv1.SendMessagesResult{MessageId: messages[item.key.Key].ID}
			}
		}
		return tx.RespondKeys(ctx, st.accountID, method, responses)
	})
	return used, err
}

// inserted gives items that are stored their results.
func (st *messageStream) inserted(items []*streamItem, messages map[string]*messaging.Message, used map[string]error) error {
	for _, item := range items {
		if used[item.key.Key] == nil {
			item.result.MessageId = messages[item.key.Key].ID
			st.resp.CreatedCount++
		}
	}
	return st.replayed(items, used)
}
