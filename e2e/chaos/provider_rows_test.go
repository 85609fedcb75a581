package chaos_test

import (
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/timestamppb"

	messagingv1 "github.com/turumba/turumba/gen/turumba/messaging/v1"
	"github.com/turumba/turumba/sim"
)

// providerRows break the provider (catalogue F-48 to F-59).
func providerRows() []row {
	return []row{
		{"F-48", "the provider accepts and does not answer, by SMS", full, beside, acceptsSilently},
		{"F-49", "no connection, no such host, no TLS, a reset before the mail", quick, beside, notReached},
		{"F-50", "three of ten answers are 503, by SMS and by mail", full, beside, oftenUnavailable},
		{"F-51", "429 with Retry-After, two workers, by SMS", quick, alone, throttledWithHint},
		{"F-52", "429 without a hint, by SMS", full, alone, throttledWithoutHint},
		{"F-53", "one provider takes 3 s for each text", full, alone, slowNeighbour},
		{"F-54", "the provider comes and goes every 5 s, by SMS", full, beside, flapping},
		{"F-55", "login refused and account not paid, by SMS and by mail", quick, beside, refusesTheChannel},
		{"F-56", "the channel gets another sender, is disabled, is deleted, by SMS", full, beside, channelChanges},
		{"F-57", "not_after passes while the channel is disabled", quick, beside, expiresWaiting},
		{"F-58", "a text of three parts of which nobody knows what became, by SMS", quick, beside, partsInDoubt},
		{"F-59", "garbage for an answer, by SMS", quick, alone, garbage},
	}
}

// acceptsSilently: what was taken without an answer is held, and never sent again.
func acceptsSilently(r *trial) {
	x := r.texter(connections(16))
	r.faults(sim.Fault{Kind: "silent", Rate: 0.1, From: x.from})
	x.messages(120)
	r.eventually("all have their outcome", "SELECT count(*) = 0 FROM messages WHERE status = 'queued'")
	silent := r.faulted(x.from, "silent")
	require.Positive(r.t, silent)
	r.may.Window = silent
	r.then = func() {
		require.Equal(r.t, map[string]int{"sent": 120 - silent, "permanently_failed outcome_unknown": silent}, x.statuses())
		require.Len(r.t, r.calls(x.from), 120)
	}
	r.did("%d of 120 messages without an answer", silent)
}

// notReached: what cannot have left is tried again and arrives once.
func notReached(r *trial) {
	tls, nowhere := r.texter(patient), r.texter(patient)
	refused, reset := r.mailer(patient), r.mailer(patient)
	base := func(x *tenant, url string) {
		token := "token" // a secret does not follow to another destination (ADR 0042)
		x.alter(&messagingv1.ChannelUpdate{Credentials: &messagingv1.ChannelCredentials{Kind: &messagingv1.ChannelCredentials_Twilio{Twilio: &messagingv1.TwilioCredentials{BaseUrl: &url, AuthToken: &token}}}}, "credentials.twilio.base_url", "credentials.twilio.auth_token")
	}
	base(tls, "https"+r.simulator.API[len("http"):])
	base(nowhere, "https://nowhere.invalid")
	r.provider.Refuse()
	r.provider.Reset()
	r.faults(sim.Fault{Kind: "drop", Rate: 1, From: reset.from})
	all := []*tenant{tls, nowhere, refused, reset}
	for _, x := range all {
		x.messages(4)
	}
	for _, x := range all[:3] {
		r.eventually("all are tried", "SELECT count(*) = 4 FROM messages WHERE account_id = $1 AND status = 'failed' AND error_code = 'transient'", x.account)
	}
	require.NoError(r.t, r.provider.Pass())
	r.eventually("all are dropped", "SELECT count(*) = 4 FROM messages WHERE account_id = $1 AND attempts > 0", reset.account)
	r.faults()
	base(tls, r.simulator.API)
	base(nowhere, r.simulator.API)
	for _, x := range all {
		x.all("sent")
	}
	r.then = func() {
		require.Zero(r.t, r.number("SELECT count(*) FROM message_attempts WHERE outcome = 'unknown'"))
	}
	r.did("4 messages on each of %d channels", len(all))
}

// oftenUnavailable: all arrive, within the attempts of the channel, and never sooner
// than the provider asked.
func oftenUnavailable(r *trial) {
	x, y := r.texter(connections(16), patient), r.mailer(patient)
	r.faults(sim.Fault{Kind: "unavailable", Rate: 0.3, From: x.from, RetryAfter: 2}, sim.Fault{Kind: "unavailable", Rate: 0.3, From: y.from})
	x.messages(60)
	y.messages(60)
	// By chance one of 120 may wait for its seventh attempt, and that is a minute.
	r.eventually("nearly all are sent", "SELECT count(*) <= 6 FROM messages WHERE status <> 'sent'")
	r.faults()
	x.all("sent")
	y.all("sent")
	require.LessOrEqual(r.t, r.number("SELECT max(attempts) FROM messages"), 21)
	last := map[string]time.Time{}
	for _, c := range r.calls(x.from) {
		if before, again := last[c.To]; again {
			require.GreaterOrEqual(r.t, c.Time.Sub(before), 2*time.Second-50*time.Millisecond, "Retry-After is 2 s")
		}
		last[c.To] = c.Time
	}
	r.did("%d calls for 60 texts, %d for 60 mails", len(r.calls(x.from)), len(r.calls(y.from)))
}

// throttledWithHint: nobody calls the channel before the time that the provider named,
// no attempt is used, and another channel goes on.
func throttledWithHint(r *trial) {
	const pause = 3 * time.Second
	x, other := r.texter(), r.texter()
	r.newWorker(r.t, "WORKER_ROLES=dispatch,upkeep")
	r.faults(sim.Fault{Kind: "throttled", Rate: 1, From: x.from, RetryAfter: int(pause / time.Second)})
	x.messages(20)
	r.eventually("the channel is paused", "SELECT coalesce(paused_until > now(), false) FROM channels WHERE id = $1", x.channel)
	asked := r.now()
	r.faults()
	other.messages(5)
	other.all("sent")
	require.Less(r.t, r.now().Sub(asked), pause, "another channel does not wait")
	x.all("sent")
	calls := r.calls(x.from)
	first, again := calls[0].Time, calls[len(calls)-1].Time
	for _, c := range calls {
		if c.Fault == "" && c.Time.Before(again) {
			again = c.Time
		}
	}
	require.GreaterOrEqual(r.t, again.Sub(first), pause-100*time.Millisecond)
	for _, c := range calls {
		quiet := c.Time.After(asked.Add(100*time.Millisecond)) && c.Time.Before(first.Add(pause-100*time.Millisecond))
		require.False(r.t, quiet, "a call %s after the first, before the pause is over", c.Time.Sub(first))
	}
	require.Zero(r.t, r.count("message_attempts"), "no attempt is used")
	r.did("%d calls for 20 texts, paused for %s", len(calls), pause)
}

// throttledWithoutHint: after a pause the channel goes on at half its rate at most.
func throttledWithoutHint(r *trial) {
	const perSecond = 10
	limit := func(req *messagingv1.CreateChannelRequest) {
		perMinute := int32(60 * perSecond)
		req.RateLimit = &perMinute
	}
	x := r.texter(connections(16), limit)
	r.faults(sim.Fault{Kind: "throttled", Rate: 1, From: x.from})
	x.messages(40)
	r.eventually("the channel is paused", "SELECT coalesce(paused_until > now(), false) FROM channels WHERE id = $1", x.channel)
	r.faults()
	x.all("sent")
	var taken []time.Time
	for _, c := range r.calls(x.from) {
		if c.Fault == "" {
			taken = append(taken, c.Time)
		}
	}
	first := 0
	for _, at := range taken {
		if at.Sub(taken[0]) < 2*time.Second {
			first++
		}
	}
	// Two seconds at half the rate, the half second that single messages may be ahead, and
	// the first.
	require.LessOrEqual(r.t, first, perSecond+perSecond/4+2, "calls in the first two seconds after the pause")
	require.Zero(r.t, r.count("message_attempts"), "no attempt is used")
	r.did("%d of 40 texts in the first 2 s, the limit is %d/s", first, perSecond)
}

// slowNeighbour: a slow provider has no more calls than its channel's connections, and
// another channel does not wait for it.
func slowNeighbour(r *trial) {
	const latency, allowed = 3 * time.Second, 16
	slow, quick := r.texter(connections(allowed)), r.texter(connections(allowed))
	p95 := func() (p float64) {
		quick.messages(30)
		quick.all("sent")
		require.NoError(r.t, r.sql.QueryRow(r.t.Context(), `SELECT percentile_cont(0.95) WITHIN GROUP (ORDER BY extract(epoch FROM sent_at - created_at))::float8
			FROM (SELECT sent_at, created_at FROM messages WHERE account_id = $1 ORDER BY id DESC LIMIT 30) m`, quick.account).Scan(&p))
		return p
	}
	alone := p95()
	r.faults(sim.Fault{Kind: "slow", Rate: 1, LatencyMS: int(latency / time.Millisecond), From: slow.from})
	slow.messages(60)
	beside := p95()
	r.faults()
	slow.all("sent")
	calls, most := r.calls(slow.from), 0
	for i, c := range calls {
		open := 1
		for _, before := range calls[:i] {
			if c.Fault == "slow" && c.Time.Sub(before.Time) < latency {
				open++
			}
		}
		most = max(most, open)
	}
	require.LessOrEqual(r.t, most, allowed, "calls at a time")
	require.LessOrEqual(r.t, beside, max(2*alone, 0.5), "p95 of the other channel in seconds")
	r.did("at most %d calls at a time, p95 of another channel %.3f s alone and %.3f s beside", most, alone, beside)
}

// flapping: while the provider is away it is called for a few messages and then for one
// at a time; all arrive.
func flapping(r *trial) {
	const phase, connected = 5 * time.Second, 4
	x := r.texter(connections(connected), patient)
	r.faults(sim.Fault{Kind: "unavailable", Rate: 1, From: x.from, RetryAfter: 1, FlapMS: int(phase / time.Millisecond)})
	for range 3 {
		x.messages(20)
		r.eventually("the provider is away", "SELECT extract(epoch FROM clock_timestamp())::bigint / 5 % 2 = 0")
		x.messages(20)
		r.eventually("it is back", "SELECT extract(epoch FROM clock_timestamp())::bigint / 5 % 2 = 1")
	}
	x.all("sent")
	away := map[int64]int{}
	for _, c := range r.calls(x.from) {
		if c.Fault != "" {
			away[c.Time.UnixMilli()/phase.Milliseconds()]++
		}
	}
	most := 0
	for _, n := range away {
		most = max(most, n)
	}
	require.Positive(r.t, most)
	require.LessOrEqual(r.t, most, connected+5+5, "calls while it was away: in flight, until the circuit opens, and one for each rest")
	r.did("120 texts, at most %d calls in 5 s of absence", most)
}

// refusesTheChannel: messages wait for a channel that its provider refuses, and flow once
// the credentials are changed.
func refusesTheChannel(r *trial) {
	x, y, unpaid := r.texter(), r.mailer(), r.texter()
	all := []*tenant{x, y, unpaid}
	r.faults(sim.Fault{Kind: "unauthorized", Rate: 1, From: x.from}, sim.Fault{Kind: "unauthorized", Rate: 1, From: y.from}, sim.Fault{Kind: "unpaid", Rate: 1, From: unpaid.from})
	for _, c := range all {
		c.messages(10)
		r.eventually("the channel is in error", "SELECT status = 'error' FROM channels WHERE id = $1", c.channel)
	}
	for _, c := range all {
		require.Equal(r.t, map[string]int{"queued": 10}, c.waiting())
	}
	r.faults()
	began := r.now()
	for _, c := range all {
		c.newPassword()
	}
	for _, c := range all {
		c.all("sent")
	}
	took := r.now().Sub(began)
	require.LessOrEqual(r.t, took, 10*time.Second)
	r.did("10 messages on each of %d channels, all gone %.1f s after the change", len(all), took.Seconds())
}

// channelChanges: two seconds after a change nothing leaves as before.
func channelChanges(r *trial) {
	moved, disabled, deleted := r.texter(connections(2), patient), r.texter(connections(2), patient), r.texter(connections(2), patient)
	all := []*tenant{moved, disabled, deleted}
	var faults []sim.Fault
	for _, x := range all {
		faults = append(faults, sim.Fault{Kind: "slow", Rate: 1, LatencyMS: 300, From: x.from})
	}
	r.faults(faults...)
	for _, x := range all {
		x.messages(40)
	}
	for _, x := range all {
		r.eventually("some are sent", "SELECT count(*) > 2 FROM messages WHERE account_id = $1 AND status = 'sent'", x.account)
	}
	channels, from := messagingv1.NewChannelServiceClient(r.messagingConn), r.digits("+1555", 8)
	moved.alter(&messagingv1.ChannelUpdate{Credentials: &messagingv1.ChannelCredentials{Kind: &messagingv1.ChannelCredentials_Twilio{Twilio: &messagingv1.TwilioCredentials{FromNumber: &from}}}}, "credentials.twilio.from_number")
	_, err := channels.DisableChannel(disabled.ctx(), &messagingv1.DisableChannelRequest{ChannelId: disabled.channel})
	require.NoError(r.t, err)
	_, err = channels.DeleteChannel(deleted.ctx(), &messagingv1.DeleteChannelRequest{ChannelId: deleted.channel, Force: true})
	require.NoError(r.t, err)
	limit := r.now().Add(2 * time.Second)
	r.faults()
	moved.all("sent")
	r.eventually("the rest of the deleted channel is given up", "SELECT count(*) = 0 FROM messages WHERE account_id = $1 AND status = 'queued'", deleted.account)
	require.Positive(r.t, disabled.waiting()["queued"])
	require.Positive(r.t, deleted.statuses()["permanently_failed channel_deleted"])
	for _, x := range all {
		for _, c := range r.calls(x.from) {
			require.True(r.t, c.Time.Before(limit), "a call as before at %s, the change was 2 s before %s", c.Time, limit)
		}
	}
	require.NotEmpty(r.t, r.calls(from))
	_, err = channels.EnableChannel(disabled.ctx(), &messagingv1.EnableChannelRequest{ChannelId: disabled.channel})
	require.NoError(r.t, err)
	r.did("40 messages on each of %d channels", len(all))
}

// expiresWaiting: what is too late is given up, also before the channel sends again.
func expiresWaiting(r *trial) {
	x := r.texter()
	channels := messagingv1.NewChannelServiceClient(r.messagingConn)
	_, err := channels.DisableChannel(x.ctx(), &messagingv1.DisableChannelRequest{ChannelId: x.channel})
	require.NoError(r.t, err)
	x.messages(5)
	late := map[string]bool{}
	for range 5 {
		req := x.request("")
		req.NotAfter = timestamppb.New(r.now().Add(time.Second))
		late[x.accept(req)] = true
	}
	r.eventually("half is too late", "SELECT count(*) = 5 FROM messages WHERE status = 'permanently_failed' AND error_code = 'expired'")
	_, err = channels.EnableChannel(x.ctx(), &messagingv1.EnableChannelRequest{ChannelId: x.channel})
	require.NoError(r.t, err)
	r.then = func() {
		rows := r.stored()
		for _, id := range x.accepted {
			require.Equal(r.t, late[id], rows[id].Code == "expired", "message %s is %s", id, rows[id].Status)
		}
		require.Len(r.t, r.calls(x.from), 5)
	}
	r.did("5 of 10 messages too late")
}

// partsInDoubt: the parts of a text are one request to the provider, who alone takes them
// apart, so one that is in doubt is held as a whole and no part of it is sent again.
func partsInDoubt(r *trial) {
	x := r.texter()
	r.faults(sim.Fault{Kind: "reset", Rate: 1, From: x.from})
	for range 5 {
		req := x.request("")
		for len(req.MessageBody) < 400 {
			req.MessageBody += " and so on"
		}
		x.accept(req)
	}
	r.eventually("all have their outcome", "SELECT count(*) = 5 FROM messages WHERE error_code = 'outcome_unknown'")
	r.may.Window = 5
	r.then = func() { require.Len(r.t, r.calls(x.from), 5) }
	r.did("5 texts of three parts each")
}

// garbage: an answer that cannot be understood leaves the message in doubt, and the
// worker as it was.
func garbage(r *trial) {
	// Each kind has a channel of its own, which fewer than five unknown outcomes in a row
	// do not trip.
	const each = 4
	kinds := []string{"html", "truncated", "no_id", "huge", "bomb", "broken"}
	x := r.texter()
	x.messages(5)
	x.all("sent")
	pid := r.worker.cmd.Process.Pid
	r.worker.forgetPeak()
	before, called := r.worker.peakMiB(), 0
	for i, kind := range kinds {
		x := r.texter()
		r.faults(sim.Fault{Kind: kind, Rate: 1, From: x.from})
		x.messages(each)
		r.eventually("all have their outcome: "+kind, "SELECT count(*) = $1 FROM messages WHERE error_code = 'outcome_unknown'", each*(i+1))
		called += len(r.calls(x.from))
	}
	r.may.Window = each * len(kinds)
	r.then = func() {
		peak := r.worker.peakMiB()
		require.LessOrEqual(r.t, peak-before, 32, "MiB more than before")
		require.Equal(r.t, pid, r.worker.cmd.Process.Pid)
		require.True(r.t, r.worker.runs())
		require.Equal(r.t, each*len(kinds), called, "calls")
	}
	r.did("%d texts for each of %d kinds, worker from %d to %d MiB", each, len(kinds), before, r.worker.peakMiB())
}
