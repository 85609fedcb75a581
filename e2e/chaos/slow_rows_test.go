package chaos_test

import (
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	accountv1 "github.com/turumba/turumba/gen/turumba/account/v1"
	messagingv1 "github.com/turumba/turumba/gen/turumba/messaging/v1"
	"github.com/turumba/turumba/sim"
)

// slowRows have providers that take their time, or never answer (ADR 0045).
func slowRows() []row {
	return []row{
		{"F-85", "many channels take mails and never answer", quick, alone, silentChannels},
		{"F-86", "providers that take 50 ms to 3 s, and now and then longer", quick, alone, latencies},
		{"F-87", "kill while a provider takes 3 s", quick, beside, killBehindSlow},
		{"F-88", "a send is cancelled while its provider takes 3 s, or never answers", quick, beside, cancelBehindSlow},
		{"F-89", "a relay that takes one mail of fifty and never answers", full, beside, sometimesSilent},
		{"F-99", "channels that never answer stand, and one token opens exports and drops them", quick, alone, droppedExports},
	}
}

// channelOf is one more channel of the tenant, with a sender of its own.
func (x *tenant) channelOf(change ...func(*messagingv1.CreateChannelRequest)) *tenant {
	x.t.Helper()
	from := "office-" + uuid.NewString()[:8] + "@chaos.example"
	own := func(req *messagingv1.CreateChannelRequest) {
		req.Name = from
		req.GetCredentials().GetSmtp().FromEmail = &from
	}
	y := &tenant{trial: x.trial, account: x.account, token: x.token, template: x.template, group: x.group, sends: map[string][]string{}}
	y.connect(append([]func(*messagingv1.CreateChannelRequest){own}, change...))
	x.of = append(x.of, y)
	return y
}

// invite makes n contacts in the tenant's group.
func (x *tenant) invite(n int) {
	x.t.Helper()
	x.members(n, func(int, *accountv1.ContactInput) {})
}

// silentChannels: others' single messages go out within a second, and their sends as fast
// as without.
func silentChannels(r *trial) {
	tenants, channels, mails, people := 4, 5, 5, 200
	if r.full {
		tenants, channels, mails, people = 10, 20, 20, 500
	}
	well := r.mailer(connections(16))
	well.invite(people)
	send := func() (took time.Duration) {
		began, id := r.now(), well.send()
		r.eventually("the send ends", "SELECT status = 'completed' FROM group_messages WHERE id = $1", id)
		return r.now().Sub(began)
	}
	alone := min(send(), send())

	silent := r.silentTenants(tenants, channels, mails)
	fresh := well.channelOf(connections(4))
	var ids []string
	for i := range 40 {
		x := well
		if i%10 == 0 {
			x = fresh
		}
		ids = append(ids, x.accept(x.request(fmt.Sprintf("code%d", i))))
	}
	r.eventually("others' messages are sent", "SELECT count(*) = 0 FROM messages WHERE id = ANY ($1::uuid[]) AND status <> 'sent'", ids)
	var slowest float64
	require.NoError(r.t, r.sql.QueryRow(r.t.Context(), `SELECT percentile_cont(0.99) WITHIN GROUP (ORDER BY extract(epoch FROM sent_at - created_at))::float8
		FROM messages WHERE id = ANY ($1::uuid[])`, ids).Scan(&slowest))
	beside := min(send(), send())
	require.LessOrEqual(r.t, slowest, 1.0, "p99 of others' single messages in seconds")
	require.LessOrEqual(r.t, beside.Seconds(), max(1.3*alone.Seconds(), alone.Seconds()+0.5), "seconds of a send beside silent channels")
	require.Zero(r.t, r.number("SELECT count(*) FROM messages WHERE status = 'permanently_failed'"), "nothing is called unknown while its call is open")
	r.endSilence(r.called(silent))
	r.did("%d silent channels of %d accounts: p99 of others %.2f s, a send of %d took %.1f s alone and %.1f s beside", len(silent), tenants, slowest, people, alone.Seconds(), beside.Seconds())
}

// silentTenants make channels whose provider takes mails and never answers, and queue
// mails on each.
func (r *trial) silentTenants(tenants, channels, mails int) (silent []*tenant) {
	r.t.Helper()
	var faults []sim.Fault
	for range tenants {
		x := r.mailer(connections(4))
		silent = append(silent, x)
		for range channels - 1 {
			silent = append(silent, x.channelOf(connections(4), func(req *messagingv1.CreateChannelRequest) {
				req.GetCredentials().GetSmtp().FromEmail = &x.from // one fault for all
			}))
		}
		faults = append(faults, sim.Fault{Kind: "silent", Rate: 1, From: x.from})
	}
	r.faults(faults...)
	for _, x := range silent {
		x.batch(mails)
	}
	return silent
}

// called is how many messages of the tenants' channels are called and have no answer.
func (r *trial) called(of []*tenant) (n int) {
	r.t.Helper()
	for _, x := range of {
		n += r.number("SELECT count(*) FROM messages m JOIN dispatch_chunks d ON d.id = m.chunk_id WHERE m.channel_id = $1 AND m.ordinal < d.calling_upto", x.channel)
	}
	return n
}

// batch makes n single messages at once.
func (x *tenant) batch(n int) {
	x.t.Helper()
	for range n {
		x.accept(x.request("single" + uuid.NewString()[:8]))
	}
}

// endSilence ends the wait for answers that never come: with the worker, whose open calls
// are unknown then.
func (r *trial) endSilence(open int) {
	r.t.Helper()
	r.worker.kill()
	r.faults()
	r.may.Window += open + 64 // and those that were begun meanwhile
	r.worker.start()
	_, err := r.sql.Exec(r.t.Context(), "UPDATE channels SET circuit_until = now() WHERE circuit_until IS NOT NULL")
	require.NoError(r.t, err)
	_, err = r.sql.Exec(r.t.Context(), "UPDATE dispatch_chunks SET not_before = now() WHERE not_before > now()")
	require.NoError(r.t, err)
}

// batchMost is how many messages a batch may have.
const batchMost = 1000

// latencies: throughput is connections / latency, however long a call takes and whichever
// lane is alone, and a single message beside a send waits for one call at most.
func latencies(r *trial) {
	const connected = 16
	cases := []struct {
		name   string
		people int
		mean   time.Duration
		faults func(from string) []sim.Fault
	}{
		{"50 ms", 2000, 50 * time.Millisecond, func(from string) []sim.Fault { return []sim.Fault{{Kind: "slow", Rate: 1, LatencyMS: 50, From: from}} }},
		{"300 ms", 600, 300 * time.Millisecond, func(from string) []sim.Fault { return []sim.Fault{{Kind: "slow", Rate: 1, LatencyMS: 300, From: from}} }},
		{"300 ms and 1 % 1.6 s", 600, 313 * time.Millisecond, func(from string) []sim.Fault {
			return []sim.Fault{{Kind: "slow", Rate: 0.01, LatencyMS: 1600, From: from}, {Kind: "slow", Rate: 1, LatencyMS: 300, From: from}}
		}},
		{"3 s", 128, 3 * time.Second, func(from string) []sim.Fault {
			return []sim.Fault{{Kind: "slow", Rate: 1, LatencyMS: 3000, From: from}}
		}},
	}
	if !r.full {
		cases = cases[1:3]
	}
	var notes []string
	for _, c := range cases {
		x := r.mailer(connections(connected))
		people := c.people
		if !r.full {
			people /= 2
		}
		x.invite(people)
		r.faults(c.faults(x.from)...)
		// took holds what was sent of n messages against what is possible. The first outcomes
		// are stored after one latency, and the last ones leave places empty for one.
		took := func(what string, n int) {
			var seconds float64
			require.NoError(r.t, r.sql.QueryRow(r.t.Context(), "SELECT extract(epoch FROM max(sent_at) - min(sent_at))::float8 FROM messages WHERE channel_id = $1", x.channel).Scan(&seconds))
			possible := float64(n-2*connected) / connected * c.mean.Seconds()
			require.LessOrEqual(r.t, possible, seconds+c.mean.Seconds(), "the fault was made")
			require.LessOrEqual(r.t, seconds, possible/0.9+2*c.mean.Seconds()+1.6, "%s: %s of %d by %d connections", c.name, what, n, connected)
			notes = append(notes, fmt.Sprintf("%s, %s: %.1f/s of %.1f", c.name, what, float64(n)/seconds, connected/c.mean.Seconds()))
		}
		id := x.send()
		r.eventually("the send is under way", "SELECT sent_count > 0 FROM group_messages WHERE id = $1", id)
		code := x.accept(x.request("code"))
		r.eventually(c.name, `SELECT status = 'completed' FROM group_messages WHERE id = $1`, id)
		took("a send", people)
		var waited float64
		require.NoError(r.t, r.sql.QueryRow(r.t.Context(), "SELECT extract(epoch FROM sent_at - created_at)::float8 FROM messages WHERE id = $1", code).Scan(&waited))
		// Its own call takes one latency (or the longer one), and it waits for one at most.
		require.LessOrEqual(r.t, waited, max(2*c.mean.Seconds(), 1.6)+2, "a single message beside the send")
		notes = append(notes, fmt.Sprintf("a code beside it %.1f s", waited))

		from := x.from
		x = r.mailer(connections(connected))
		r.faults(append(c.faults(from), c.faults(x.from)...)...)
		for n := people; n > 0; n -= batchMost {
			x.together(min(n, batchMost))
		}
		x.all("sent")
		took("singles", people)
	}
	r.faults()
	r.did("%s", strings.Join(notes, ", "))
}

// together makes n single messages by one call.
func (x *tenant) together(n int) {
	x.t.Helper()
	req := &messagingv1.BatchCreateMessagesRequest{}
	for range n {
		one := x.request("single" + uuid.NewString()[:8])
		req.Messages = append(req.Messages, &messagingv1.MessageInput{ChannelId: one.GetChannelId(), DeliveryAddress: one.GetDeliveryAddress(), Subject: one.GetSubject(), MessageBody: one.GetMessageBody()})
	}
	res, err := messagingv1.NewMessageServiceClient(x.messagingConn).BatchCreateMessages(x.ctx(), req)
	require.NoError(x.t, err)
	for _, one := range res.GetResults() {
		require.NotEmpty(x.t, one.GetMessage().GetId())
		x.accepted = append(x.accepted, one.GetMessage().GetId())
	}
}

// killBehindSlow kills a worker whose calls take 3 s: no more is unknown than twice the
// connections.
func killBehindSlow(r *trial) {
	const connected = 16
	x, kills := r.mailer(connections(connected)), r.times(5)
	x.invite(10 * kills * connected)
	r.faults(sim.Fault{Kind: "slow", Rate: 1, LatencyMS: 3000, From: x.from})
	x.send()
	for range kills {
		r.eventually("calls are open", "SELECT count(*) > 0 FROM dispatch_chunks WHERE state = 'leased' AND calling_upto > 0")
		r.worker.kill()
		r.expire()
		r.worker.start()
		r.eventually("the leases are taken", "SELECT count(*) = 0 FROM dispatch_chunks WHERE state = 'leased' AND lease_until < now()")
	}
	r.faults()
	unknown := r.number("SELECT count(*) FROM messages WHERE error_code = 'outcome_unknown'")
	r.may.Window = kills * 2 * connected
	r.did("%d kills, %d unknown", kills, unknown)
}

// cancelBehindSlow: two seconds after the cancel nothing is called, and all that was not is
// settled though calls are open.
func cancelBehindSlow(r *trial) {
	slow, silent := r.mailer(connections(16)), r.mailer(connections(16))
	slow.invite(400)
	silent.invite(400)
	r.faults(sim.Fault{Kind: "slow", Rate: 1, LatencyMS: 3000, From: slow.from}, sim.Fault{Kind: "silent", Rate: 1, From: silent.from})
	sends := map[*tenant]string{slow: slow.send(), silent: silent.send()}
	called := func(id string) int {
		return r.number("SELECT count(*) FROM messages m LEFT JOIN dispatch_chunks d ON d.id = m.chunk_id WHERE m.group_message_id = $1 AND (m.status = 'sent' OR m.ordinal < d.calling_upto)", id)
	}
	for _, id := range sends {
		r.eventually("it is called", "SELECT count(*) > 0 FROM dispatch_chunks WHERE group_message_id = $1 AND calling_upto > 0", id)
	}
	for x, id := range sends {
		_, err := messagingv1.NewGroupMessageServiceClient(r.messagingConn).CancelGroupMessage(x.ctx(), &messagingv1.CancelGroupMessageRequest{GroupMessageId: id})
		require.NoError(r.t, err)
	}
	began := r.now()
	for _, id := range sends {
		r.eventually("what was not called is settled", "SELECT cancelled_count >= 400 - 32 FROM group_messages WHERE id = $1", id)
	}
	took := r.now().Sub(began)
	require.LessOrEqual(r.t, took, 5*time.Second)
	open := called(sends[silent])
	require.LessOrEqual(r.t, open, 32)
	r.eventually("the slow ones end", "SELECT pending_count = 0 FROM group_messages WHERE id = $1", sends[slow])
	r.endSilence(open)
	r.did("settled %.1f s after the cancel, %d calls open", took.Seconds(), open)
}

// sometimesSilent: the channel answers others, so nothing rests; the calls without an
// answer are awaited.
func sometimesSilent(r *trial) {
	x := r.mailer(connections(16))
	x.invite(300)
	r.faults(sim.Fault{Kind: "silent", Rate: 0.02, From: x.from}, sim.Fault{Kind: "slow", Rate: 1, LatencyMS: 200, From: x.from})
	id := x.send()
	r.eventually("all others are sent", "SELECT pending_count <= 16 AND sent_count >= 284 FROM group_messages WHERE id = $1", id)
	open := r.number("SELECT pending_count FROM group_messages WHERE id = $1", id)
	require.Zero(r.t, r.number("SELECT count(*) FROM messages WHERE status = 'permanently_failed'"))
	r.endSilence(open)
	r.did("%d of 300 mails without an answer", open)
}
