package bench_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/timestamppb"

	messagingv1 "github.com/turumba/turumba/gen/turumba/messaging/v1"
	optionsv1 "github.com/turumba/turumba/gen/turumba/options/v1"
	"github.com/turumba/turumba/kit/grpcserver"
)

// listCalls is how many calls one turn makes.
const listCalls = 200

// BenchmarkRESTList is a list of 50 messages with the names of what they refer to,
// with the whole chain, over a store that does nothing, beside a net/http handler
// without any of it that writes the same bytes by encoding/json, from structs.
func BenchmarkRESTList(b *testing.B) {
	store := messageStore{page: pageOfMessages()}
	server, token := chain(b, func(s *grpcserver.Server) { messagingv1.RegisterMessageServiceServer(s, store) }, "messages.read")
	ours, request := gateway(b, server), get("/v1/messages?limit=50", token)
	body := answer(b, ours, request)
	var page jsonPage
	require.NoError(b, json.Unmarshal([]byte(body), &page))
	require.Len(b, page.Data, listPage)
	theirs := plain(b, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		out, err := json.Marshal(&page)
		if err != nil {
			panic(err)
		}
		_, _ = w.Write(out) // a client that went away fails the benchmark itself
	}))
	require.Equal(b, body, answer(b, theirs, request))
	inTurns(b, listCalls, repeat(b, ours, request), repeat(b, theirs, request))
}

// messageStore answers lists from memory.
type messageStore struct {
	messagingv1.UnimplementedMessageServiceServer
	page *messagingv1.ListMessagesResponse
}

func (m messageStore) ListMessages(context.Context, *messagingv1.ListMessagesRequest) (*messagingv1.ListMessagesResponse, error) {
	return m.page, nil
}

func pageOfMessages() *messagingv1.ListMessagesResponse {
	at := time.Date(2026, 11, 25, 12, 0, 0, 123456000, time.UTC)
	page := &messagingv1.ListMessagesResponse{Meta: &optionsv1.ListMeta{Total: 10_000, Limit: listPage, NextPageToken: "dGhlIG5leHQgcGFnZSBvZiB0aGUgbGlzdA"}}
	for i := range listPage {
		id := func(kind int) string { return fmt.Sprintf("0190a5c8-%04d-7000-8000-%012d", kind, i) }
		page.Data = append(page.Data, &messagingv1.Message{
			Id: id(1), AccountId: contactID, ChannelId: id(2), ContactId: id(3), TemplateId: id(4),
			Direction: messagingv1.MessageDirection_MESSAGE_DIRECTION_OUTBOUND, Status: messagingv1.MessageStatus_MESSAGE_STATUS_DELIVERED,
			DeliveryAddress: fmt.Sprintf("person-%d@example.org", i), ProviderMessageId: id(5), SentByUserId: contactID, Subject: "School starts on Monday",
			MessageBody: "Dear Abebe Bikila, school starts on Monday at eight. Please bring \"everything\" that is on the list,\nand be there a quarter of an hour earlier.",
			SentAt:      timestamppb.New(at.Add(time.Second)), DeliveredAt: timestamppb.New(at.Add(2 * time.Second)), CreatedAt: timestamppb.New(at), UpdatedAt: timestamppb.New(at.Add(2 * time.Second)),
			Channel:  &messagingv1.ChannelSummary{Id: id(2), Name: "School office", ChannelType: messagingv1.ChannelType_CHANNEL_TYPE_EMAIL},
			Contact:  &messagingv1.ContactSummary{Id: id(3), Name: "Abebe Bikila", Email: fmt.Sprintf("person-%d@example.org", i), Phone: "+251911000000"},
			Template: &messagingv1.TemplateSummary{Id: id(4), Name: "Start of term"},
		})
	}
	return page
}

// jsonPage, jsonMessage and the rest are a list of messages as somebody would write
// it for encoding/json.
type jsonPage struct {
	Data []jsonMessage `json:"data"`
	Meta struct {
		Total           int32  `json:"total"`
		Skip            int32  `json:"skip"`
		Limit           int32  `json:"limit"`
		NextPageToken   string `json:"next_page_token"`
		TotalIsEstimate bool   `json:"total_is_estimate"`
	} `json:"meta"`
}

type jsonMessage struct {
	ID                string     `json:"id"`
	AccountID         string     `json:"account_id"`
	ChannelID         string     `json:"channel_id"`
	ContactID         string     `json:"contact_id"`
	GroupMessageID    string     `json:"group_message_id"`
	TemplateID        string     `json:"template_id"`
	Direction         string     `json:"direction"`
	Status            string     `json:"status"`
	DeliveryAddress   string     `json:"delivery_address"`
	MessageBody       string     `json:"message_body"`
	ProviderMessageID string     `json:"provider_message_id"`
	Attempts          int32      `json:"attempts"`
	SentByUserID      string     `json:"sent_by_user_id"`
	SentAt            *time.Time `json:"sent_at,omitempty"`
	DeliveredAt       *time.Time `json:"delivered_at,omitempty"`
	FailedAt          *time.Time `json:"failed_at,omitempty"`
	CreatedAt         time.Time  `json:"created_at"`
	UpdatedAt         time.Time  `json:"updated_at"`
	Subject           string     `json:"subject"`
	AttemptHistory    []struct{} `json:"attempt_history"`
	Channel           *jsonName  `json:"channel,omitempty"`
	Contact           *jsonName  `json:"contact,omitempty"`
	Template          *jsonName  `json:"template,omitempty"`
}

type jsonName struct {
	ID          string `json:"id"`
	Name        string `json:"name"`
	ChannelType string `json:"channel_type,omitempty"`
	Email       string `json:"email,omitempty"`
	Phone       string `json:"phone,omitempty"`
}
