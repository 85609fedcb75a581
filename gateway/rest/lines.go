package rest

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"mime"
	"net/http"
	"os"

	"github.com/grpc-ecosystem/grpc-gateway/v2/utilities"
	"google.golang.org/grpc"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	messagingv1 "github.com/turumba/turumba/gen/turumba/messaging/v1"
	"github.com/turumba/turumba/kit/apierr"
)

const (
	messagesPath = "/v1/messages/stream"
	// maxLines is the most bytes of a body of messages; the service counts them itself,
	// in fewer bytes.
	maxLines = 512 << 20
	// maxLine is the most bytes of one line: a message of 256 KiB with escapes.
	maxLine = 2 << 20
)

// messageLines is the route whose body is one message on each line, which the
// transcoder cannot carry; it leads through the same RPC and the same chain.
type messageLines struct {
	calls    *transcoder
	messages messagingv1.MessageServiceClient
}

// send sends the lines to SendMessages.
func (l *messageLines) send(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel() // a body that breaks off breaks the stream off
	resp, err := l.forward(ctx, r)
	if err != nil {
		writeError(w, r, err)
		return
	}
	body, err := Marshal(resp)
	if err != nil {
		writeError(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusCreated)
	_, _ = w.Write(body) // the client went away; the messages are stored
}

func (l *messageLines) forward(ctx context.Context, r *http.Request) (*messagingv1.SendMessagesResponse, error) {
	if err := linesOnly(r); err != nil {
		return nil, err
	}
	settings := &messagingv1.SendMessagesSettings{}
	if err := (queryParser{}).Parse(settings, r.URL.Query(), utilities.NewDoubleArray(nil)); err != nil {
		return nil, err
	}
	ctx, err := l.calls.annotate(ctx, r, messagingv1.MessageService_SendMessages_FullMethodName)
	if err != nil {
		return nil, err
	}
	stream, err := l.messages.SendMessages(ctx)
	if err != nil {
		return nil, err
	}
	if err := sendLines(stream, settings, r.Body); err != nil {
		return nil, err
	}
	return stream.CloseAndRecv()
}

func linesOnly(r *http.Request) error {
	mt, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || mt != "application/x-ndjson" {
		return apierr.New(errorv1.Reason_REASON_UNSUPPORTED_MEDIA_TYPE, "the body must be application/x-ndjson, not compressed")
	}
	return nil
}

// sendLines sends the settings and a message for each line. When the service ends the
// call before, its answer tells why.
func sendLines(stream grpc.ClientStreamingClient[messagingv1.SendMessagesRequest, messagingv1.SendMessagesResponse], settings *messagingv1.SendMessagesSettings, body io.Reader) error {
	err := stream.Send(&messagingv1.SendMessagesRequest{Part: &messagingv1.SendMessagesRequest_Settings{Settings: settings}})
	lines := bufio.NewScanner(body)
	lines.Buffer(nil, maxLine)
	n := 0
	for err == nil && lines.Scan() {
		n++
		line := bytes.TrimSpace(lines.Bytes())
		if len(line) == 0 {
			continue
		}
		item := &messagingv1.SendMessagesItem{}
		if bad := decodeMessage(line, item); bad != nil {
			return badLine(n, bad)
		}
		err = stream.Send(&messagingv1.SendMessagesRequest{Part: &messagingv1.SendMessagesRequest_Item{Item: item}})
	}
	switch {
	case errors.Is(err, io.EOF):
		return nil
	case err != nil:
		return err
	}
	return lineError(lines.Err(), n+1)
}

// badLine tells of a line that is no message.
func badLine(n int, err error) error {
	var own *apierr.Error
	if errors.As(err, &own) && len(own.Fields) > 0 {
		return apierr.New(own.Reason, "line %d is not valid", n).WithFields(own.Fields...)
	}
	return apierr.New(errorv1.Reason_REASON_INVALID_JSON, "line %d: %s", n, err)
}

// lineError tells of a body that cannot be read to its end.
func lineError(err error, line int) error {
	var tooLarge *http.MaxBytesError
	switch {
	case err == nil, errors.As(err, &tooLarge):
		return err
	case errors.Is(err, bufio.ErrTooLong):
		return apierr.New(errorv1.Reason_REASON_PAYLOAD_TOO_LARGE, "line %d is longer than %d MiB", line, maxLine>>20)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return apierr.New(errorv1.Reason_REASON_DEADLINE_EXCEEDED, "the messages came too slowly; send them again with the same keys")
	}
	return apierr.New(errorv1.Reason_REASON_INVALID_JSON, "the body cannot be read to its end; send the messages again with the same keys").Wrap(err)
}
