package rest

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	messagingv1 "github.com/turumba/turumba/gen/turumba/messaging/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/telemetry"
)

// lines is the far side of the route of messages: it keeps what came.
type lines struct {
	files
	account string
	keys    []string
	types   []messagingv1.ChannelType
}

func (l *lines) NewStream(ctx context.Context, _ *grpc.StreamDesc, _ string, _ ...grpc.CallOption) (grpc.ClientStream, error) {
	l.md, _ = metadata.FromOutgoingContext(ctx)
	return &lineStream{fileStream: &fileStream{files: &l.files, ctx: ctx}, lines: l}, nil
}

type lineStream struct {
	*fileStream
	lines *lines
}

func (l *lineStream) SendMsg(m any) error {
	req, _ := m.(*messagingv1.SendMessagesRequest)
	if s := req.GetSettings(); s != nil {
		l.lines.account = s.GetAccountId()
		return nil
	}
	l.lines.keys = append(l.lines.keys, req.GetItem().GetIdempotencyKey())
	l.lines.types = append(l.lines.types, req.GetItem().GetMessage().GetChannelType())
	return nil
}

func (l *lineStream) RecvMsg(m any) error {
	resp, _ := m.(*messagingv1.SendMessagesResponse)
	resp.CreatedCount = int32(len(l.lines.keys))
	return nil
}

func TestLines(t *testing.T) {
	t.Parallel()
	const good = `{"idempotency_key":"a","message":{"channel_type":"email","message_body":"x"}}`
	for name, c := range map[string]struct {
		body, contentType, token string
		status                   int
		reason                   errorv1.Reason
		detail                   string
		keys                     []string
	}{
		"lines, some empty, the last without an end": {good + "\n\r\n \n" + strings.Replace(good, `"a"`, `"b"`, 1), "application/x-ndjson; charset=utf-8", "Bearer x", 201, 0, "", []string{"a", "b"}},
		"nothing":                               {"", "application/x-ndjson", "Bearer x", 201, 0, "", nil},
		"no JSON":                               {good + "\n{", "application/x-ndjson", "Bearer x", 400, errorv1.Reason_REASON_INVALID_JSON, "line 2", []string{"a"}},
		"two on a line":                         {good + good, "application/x-ndjson", "Bearer x", 400, errorv1.Reason_REASON_INVALID_JSON, "line 1", nil},
		"an unknown field":                      {`{"key":"a"}`, "application/x-ndjson", "Bearer x", 400, errorv1.Reason_REASON_INVALID_JSON, "key", nil},
		"a line without end":                    {good + "\n" + strings.Repeat(" ", maxLine+1), "application/x-ndjson", "Bearer x", 413, errorv1.Reason_REASON_PAYLOAD_TOO_LARGE, "line 2", []string{"a"}},
		"more free data than there is room for": {strings.Replace(good, `"message_body":"x"`, `"metadata":{"a":[`+strings.Repeat("0,", 5000)+`0]}`, 1), "application/x-ndjson", "Bearer x", 422, errorv1.Reason_REASON_VALIDATION_FAILED, "line 1", nil},
		"JSON in one piece":                     {"[" + good + "]", "application/json", "Bearer x", 415, errorv1.Reason_REASON_UNSUPPORTED_MEDIA_TYPE, "x-ndjson", nil},
		"nobody sends it":                       {good, "application/x-ndjson", "", 401, errorv1.Reason_REASON_UNAUTHENTICATED, "", nil},
		"no type of the body":                   {good, "", "Bearer x", 415, errorv1.Reason_REASON_UNSUPPORTED_MEDIA_TYPE, "x-ndjson", nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := &lines{}
			h, err := NewHandler(t.Context(), Config{Backends: Backends{Account: l, Messaging: l}, Logger: telemetry.Discard(), Clock: clock.System()})
			require.NoError(t, err)
			res := do(h, http.MethodPost, messagesPath+"/?account_id=acc", c.body, "Content-Type", c.contentType, "Authorization", c.token, "Idempotency-Key", "k")
			require.Equal(t, c.status, res.Code, res.Body)
			require.Equal(t, c.keys, l.keys)
			if c.reason != 0 {
				require.Contains(t, res.Body.String(), apierr.Name(c.reason))
				require.Contains(t, res.Body.String(), c.detail)
				return
			}
			require.Equal(t, "acc", l.account)
			require.True(t, l.complete)
			require.Equal(t, []string{"k"}, l.md.Get("idempotency-key"))
			require.Contains(t, res.Body.String(), `"created_count":`)
			for _, ct := range l.types {
				require.Equal(t, messagingv1.ChannelType_CHANNEL_TYPE_EMAIL, ct)
			}
		})
	}
}
