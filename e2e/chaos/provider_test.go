package chaos_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	messagingv1 "github.com/turumba/turumba/gen/turumba/messaging/v1"
	"github.com/turumba/turumba/sim"
)

// faults lets the provider make these from now on, until the next call or the end of
// the row.
func (r *trial) faults(list ...sim.Fault) {
	r.t.Helper()
	raw, err := json.Marshal(map[string]any{"faults": slices.Concat([]sim.Fault{}, list)})
	require.NoError(r.t, err)
	r.simulate(http.MethodPost, "/control", raw, &struct{}{})
}

// calls are those that the provider got from a sender, also those that it did not take.
func (r *trial) calls(from string) []sim.Call {
	r.t.Helper()
	var got struct{ Calls []sim.Call }
	r.simulate(http.MethodGet, "/api/calls?from="+url.QueryEscape(from), nil, &got)
	return got.Calls
}

// faulted is how many of a sender's calls had the fault.
func (r *trial) faulted(from, kind string) (n int) {
	r.t.Helper()
	for _, c := range r.calls(from) {
		if c.Fault == kind {
			n++
		}
	}
	return n
}

// simulate calls the simulator's own face.
func (r *trial) simulate(method, path string, body []byte, into any) {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), method, r.simulator.Mailbox+path, bytes.NewReader(body))
	require.NoError(r.t, err)
	req.Header.Set("Content-Type", "application/json")
	res, err := (&http.Client{Timeout: 10 * time.Second}).Do(req)
	require.NoError(r.t, err)
	defer func() { require.NoError(r.t, res.Body.Close()) }()
	require.Equal(r.t, http.StatusOK, res.StatusCode)
	require.NoError(r.t, json.NewDecoder(res.Body).Decode(into))
}

// texter makes an account whose channel sends text messages, and from a sender that
// nobody else has.
func (r *trial) texter(change ...func(*messagingv1.CreateChannelRequest)) *tenant {
	r.t.Helper()
	return r.tenant(0, append([]func(*messagingv1.CreateChannelRequest){r.byTwilio}, change...)...)
}

func (r *trial) byTwilio(req *messagingv1.CreateChannelRequest) {
	account, token, from, base := "AC"+strings.ReplaceAll(uuid.NewString(), "-", ""), "token", r.digits("+1555", 8), r.simulator.API
	req.Credentials = &messagingv1.ChannelCredentials{Kind: &messagingv1.ChannelCredentials_Twilio{Twilio: &messagingv1.TwilioCredentials{
		AccountSid: &account, AuthToken: &token, FromNumber: &from, BaseUrl: &base,
	}}}
}

// mailer makes an account whose channel sends mail from a sender that nobody else has.
func (r *trial) mailer(change ...func(*messagingv1.CreateChannelRequest)) *tenant {
	r.t.Helper()
	from := "office-" + uuid.NewString()[:8] + "@chaos.example"
	own := func(req *messagingv1.CreateChannelRequest) { req.GetCredentials().GetSmtp().FromEmail = &from }
	return r.tenant(0, append([]func(*messagingv1.CreateChannelRequest){own}, change...)...)
}

// digits are n of them, by chance, after a beginning.
func (r *trial) digits(beginning string, n int) string {
	id := uuid.New()
	number := uint64(0)
	for _, b := range id[8:] {
		number = number<<8 | uint64(b)
	}
	return beginning + fmt.Sprintf("%020d", number)[20-n:]
}

// senderOf is who the channel's messages come from.
func senderOf(req *messagingv1.CreateChannelRequest) string {
	if t := req.GetCredentials().GetTwilio(); t != nil {
		return t.GetFromNumber()
	}
	return req.GetCredentials().GetSmtp().GetFromEmail()
}

// patient lets the channel try again often and soon.
func patient(req *messagingv1.CreateChannelRequest) {
	count, interval := int32(20), int32(1)
	req.RetryCount, req.RetryInterval = &count, &interval
}

// numbers are the messages by the phone number that they go to: the SMS face is not
// told our id.
func (r *trial) numbers() map[string]string {
	r.t.Helper()
	rows, err := r.sql.Query(r.t.Context(), "SELECT delivery_address, id::text FROM messages WHERE delivery_address LIKE '+%'")
	require.NoError(r.t, err)
	defer rows.Close()
	ids := map[string]string{}
	for rows.Next() {
		var to, id string
		require.NoError(r.t, rows.Scan(&to, &id))
		ids[to] = id
	}
	require.NoError(r.t, rows.Err())
	return ids
}

// statuses are how many of the tenant's messages are in which state, and why.
func (x *tenant) statuses() map[string]int {
	x.t.Helper()
	n := map[string]int{}
	rows := x.stored()
	for _, id := range x.accepted {
		word := rows[id].Status
		if rows[id].Code != "" {
			word += " " + rows[id].Code
		}
		n[word]++
	}
	return n
}

// all waits until each of the tenant's messages is in the state.
func (x *tenant) all(status string) {
	x.t.Helper()
	x.eventually("all are "+status, "SELECT count(*) = 0 FROM messages WHERE account_id = $1 AND status <> $2", x.account, status)
}

// alter changes the channel.
func (x *tenant) alter(change *messagingv1.ChannelUpdate, mask ...string) {
	x.t.Helper()
	req := &messagingv1.UpdateChannelRequest{ChannelId: x.channel, Channel: change, UpdateMask: &fieldmaskpb.FieldMask{Paths: mask}}
	_, err := messagingv1.NewChannelServiceClient(x.messagingConn).UpdateChannel(x.ctx(), req)
	require.NoError(x.t, err)
}

// waiting is statuses without the reason of the last refusal.
func (x *tenant) waiting() map[string]int {
	n := map[string]int{}
	for word, times := range x.statuses() {
		status, _, _ := strings.Cut(word, " ")
		n[status] += times
	}
	return n
}

// newPassword changes the channel's credentials.
func (x *tenant) newPassword() {
	x.t.Helper()
	secret := uuid.NewString()
	if x.texts {
		x.alter(&messagingv1.ChannelUpdate{Credentials: &messagingv1.ChannelCredentials{Kind: &messagingv1.ChannelCredentials_Twilio{Twilio: &messagingv1.TwilioCredentials{AuthToken: &secret}}}}, "credentials.twilio.auth_token")
		return
	}
	x.alter(&messagingv1.ChannelUpdate{Credentials: &messagingv1.ChannelCredentials{Kind: &messagingv1.ChannelCredentials_Smtp{Smtp: &messagingv1.SmtpCredentials{FromName: &secret}}}}, "credentials.smtp.from_name")
}

// accept makes a message of one's own making and notes it.
func (x *tenant) accept(req *messagingv1.CreateMessageRequest) (id string) {
	x.t.Helper()
	res, err := messagingv1.NewMessageServiceClient(x.messagingConn).CreateMessage(x.ctx(), req)
	require.NoError(x.t, err)
	id = res.GetMessage().GetId()
	x.accepted = append(x.accepted, id)
	return id
}

// number is what the query counts.
func (r *trial) number(sql string, args ...any) (n int) {
	r.t.Helper()
	require.NoError(r.t, r.sql.QueryRow(r.t.Context(), sql, args...).Scan(&n))
	return n
}

// connections are how many the channel may have open.
func connections(n int32) func(*messagingv1.CreateChannelRequest) {
	return func(req *messagingv1.CreateChannelRequest) { req.Connections = &n }
}
