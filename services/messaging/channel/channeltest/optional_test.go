package channeltest_test

import (
	"bufio"
	"context"
	"crypto/hmac"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/turumba/turumba/kit/egress"
	"github.com/turumba/turumba/services/messaging/channel"
	"github.com/turumba/turumba/services/messaging/channel/channeltest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// parrot is the smallest adapter with every optional interface: it says a line and is
// answered by one.
type parrot struct{ env channeltest.Env }

func (parrot) Type() string     { return "sms" }
func (parrot) Provider() string { return "parrot" }

func (parrot) Capabilities() channel.Capabilities {
	return channel.Capabilities{MaxText: 100, MaxInFlight: 1, Receipts: true}
}

func (p parrot) Open(s channel.Settings) (channel.Sender, error) {
	if _, ok := s.(channel.EmailSettings); !ok {
		return nil, fmt.Errorf("open parrot: settings are %T", s)
	}
	return &cage{env: p.env}, nil
}

type cage struct {
	env    channeltest.Env
	closed atomic.Bool
}

var (
	_ channel.Receiver  = (*cage)(nil)
	_ channel.Registrar = (*cage)(nil)
	_ channel.Poller    = (*cage)(nil)
)

func (c *cage) Close() error {
	c.closed.Store(true)
	return nil
}

// say exchanges a line; a Result says why there is no answer.
func (c *cage) say(ctx context.Context, line string) (string, *channel.Result) {
	if ctx.Err() != nil || c.closed.Load() {
		res := channel.Fail(channel.ClassTransient, "cancelled", "the send was stopped")
		return "", &res
	}
	conn, err := c.env.Dialer.DialContext(ctx, "tcp", channeltest.Hostname+":1")
	if err != nil {
		class := channel.ClassTransient
		if errors.Is(err, egress.ErrForbidden) {
			class = channel.ClassConfig
		}
		res := channel.Fail(class, "connect_failed", "the provider cannot be reached")
		return "", &res
	}
	defer func() { _ = conn.Close() }()
	_, _ = io.WriteString(conn, line+"\r\n") // what did not leave is not answered
	answer, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		res := channel.Lost("lost", "the provider did not answer")
		return "", &res
	}
	return strings.TrimSpace(answer), nil
}

func (c *cage) Send(ctx context.Context, m channel.Message) channel.Result {
	if len(m.Text) > 100 {
		return channel.Result{Outcome: channel.Rejected, Class: channel.ClassPermanentContent, Code: "too_big"}
	}
	id, failed := c.say(ctx, "SAY "+m.ID+" "+m.Text)
	if failed != nil {
		return *failed
	}
	return channel.Result{Outcome: channel.Accepted, Class: channel.ClassOK, ProviderIDs: []string{id}}
}

func (*cage) Receive(call channel.Call) (channel.Received, error) {
	if !hmac.Equal([]byte(call.Header.Get("Signature")), []byte("feather")) {
		return channel.Received{}, channel.ErrForged
	}
	return channel.Received{Receipts: []channel.Receipt{{DedupeKey: "1", ProviderID: "p1", State: channel.ReceiptDelivered}}}, nil
}

func (c *cage) Register(ctx context.Context, url string) channel.Result {
	if _, failed := c.say(ctx, "HOOK "+url); failed != nil {
		return channel.Fail(failed.Class, "connect_failed", "the provider cannot be reached")
	}
	return channel.Result{Outcome: channel.Accepted, Class: channel.ClassOK}
}

func (c *cage) Poll(ctx context.Context, cursor string) (channel.Received, string, channel.Result) {
	next, failed := c.say(ctx, "NEWS "+cursor)
	if failed != nil {
		return channel.Received{}, cursor, channel.Fail(failed.Class, "connect_failed", "the provider cannot be reached")
	}
	return channel.Received{}, next, channel.Result{Outcome: channel.Accepted, Class: channel.ClassOK}
}

// TestParrot holds the suite's own laws against an adapter that has everything.
func TestParrot(t *testing.T) {
	t.Parallel()
	channeltest.Run(t, channeltest.Suite{
		New:      func(env channeltest.Env) channel.Adapter { return parrot{env} },
		Settings: func() channel.Settings { return channel.EmailSettings{} },
		Message: func() channel.Message {
			return channel.Message{ID: "m1", To: "+15550001111", Text: "hello", CreatedAt: time.Unix(0, 0)}
		},
		Healthy:   channeltest.Dialogue("C: SAY m1 ", "S: p1"),
		BreaksOff: channeltest.Dialogue("C: SAY m1 ", "close"),
		Polling:   channeltest.Dialogue("C: NEWS c0", "S: c1"),
		Registers: channeltest.Dialogue("C: HOOK https://", "S: ok"),
	})
}

func TestReceiptStatesAreOrdered(t *testing.T) {
	t.Parallel()
	require.Less(t, channel.ReceiptSent, channel.ReceiptFailed)
	require.Less(t, channel.ReceiptFailed, channel.ReceiptDelivered)
	require.Less(t, channel.ReceiptDelivered, channel.ReceiptRead)
}
