package chaos_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/e2e/chaos/fault"
	accountv1 "github.com/turumba/turumba/gen/turumba/account/v1"
	messagingv1 "github.com/turumba/turumba/gen/turumba/messaging/v1"
	"github.com/turumba/turumba/kit/failpoint"
)

// fanoutRows break the fan-out of sends (catalogue F-30 to F-36).
func fanoutRows() []row {
	return []row{
		{"F-30", "kill at the first, a middle and the last batch, and before the end", smoke, beside, killFanout},
		{"F-31", "a contact in three groups, an excluded one, and changes while the send runs", quick, beside, changesMidway},
		{"F-32", "several workers take the same send", quick, beside, fanoutRivals},
		{"F-33", "the account service and its database stall and break in the middle", full, beside, contactsAway},
		{"F-34", "cancel at half", full, beside, cancelAtHalf},
		{"F-35", "100 000 recipients", full, alone, manyRecipients},
		{"F-36", "a template that one of a hundred contacts does not fill", quick, beside, unfilled},
	}
}

// killFanout kills the worker at each step of a send to five batches.
func killFanout(r *trial) {
	x, rounds := r.tenant(4600), r.times(3)-1
	steps := []struct {
		point failpoint.Point
		nth   int
	}{
		{failpoint.FanoutBeforeBatch, 1},
		{failpoint.FanoutAfterBatch, 1},
		{failpoint.FanoutBeforeBatch, 2},
		{failpoint.FanoutAfterBatch, 3},
		{failpoint.FanoutBeforeEnd, 1},
	}
	for range rounds {
		r.worker.kill()
		x.send()
		for _, s := range steps {
			r.killed(r.worker, s.point, s.nth)
			r.expire()
		}
		r.worker.start()
		r.eventually("the send has all its recipients", "SELECT count(*) = 0 FROM fanout_jobs")
	}
	r.may.Window = rounds * len(steps) * inFlight
	r.did("%d kills in %d sends to %d", rounds*len(steps), rounds, len(x.contacts))
}

// fanoutRivals lets three workers take sends at once.
func fanoutRivals(r *trial) {
	x, times := r.tenant(600), r.times(5)
	r.newWorker(r.t, "WORKER_ROLES=fanout")
	r.newWorker(r.t, "WORKER_ROLES=fanout")
	for range times {
		x.send()
	}
	r.did("%d sends to %d, three workers", times, len(x.contacts))
}

// cancelAtHalf cancels a send when half of its recipients have their outcome: two
// seconds later nothing starts any more.
func cancelAtHalf(r *trial) {
	x := r.tenant(600)
	slow(r.t, r.simulator, 200)
	defer slow(r.t, r.simulator, 0)
	id := x.send()
	r.eventually("half is sent", "SELECT sent_count >= 300 FROM group_messages WHERE id = $1", id)
	_, err := messagingv1.NewGroupMessageServiceClient(r.messagingConn).CancelGroupMessage(x.ctx(), &messagingv1.CancelGroupMessageRequest{GroupMessageId: id})
	require.NoError(r.t, err)
	limit := r.now().Add(2*time.Second + 200*time.Millisecond) // the journal notes when a message has come
	r.eventually("the rest is cancelled", "SELECT status = 'cancelled' AND pending_count = 0 FROM group_messages WHERE id = $1", id)
	r.then = func() {
		var sent, cancelled int
		require.NoError(r.t, r.sql.QueryRow(r.t.Context(), "SELECT sent_count, cancelled_count FROM group_messages WHERE id = $1", id).Scan(&sent, &cancelled))
		require.Positive(r.t, cancelled)
		require.Equal(r.t, len(x.contacts), sent+cancelled)
		for _, times := range r.received() {
			require.True(r.t, times[0].Before(limit), "sent at %s, cancelled 2 s before %s", times[0], limit)
		}
	}
	r.did("one send to %d", len(x.contacts))
}

// midway starts a send with a worker that does nothing but fan out, and stops it before
// the second batch; the function returned lets it go on.
func (x *tenant) midway(req *messagingv1.CreateGroupMessageRequest) (id string, goOn func()) {
	x.t.Helper()
	x.worker.kill()
	x.worker.start("WORKER_ROLES=fanout", "FP="+string(failpoint.FanoutBeforeBatch)+"=block@2")
	said := "failpoint " + string(failpoint.FanoutBeforeBatch)
	before := strings.Count(x.worker.log.String(), said)
	id = x.queue(req)
	require.Eventually(x.t, func() bool { return strings.Count(x.worker.log.String(), said) > before }, soon, blink)
	return id, func() { require.NoError(x.t, x.worker.cmd.Process.Signal(syscall.SIGUSR1)) }
}

// changesMidway changes what a send is for while it runs. Who is in three groups is one
// recipient, who is excluded none; who is deleted gets nothing by whoever takes the send
// over, and who opts out nothing at all, whether there is a message already or not.
func changesMidway(r *trial) {
	x := r.tenant(1200)
	groups := accountv1.NewContactGroupServiceClient(r.accountConn)
	req := x.toGroup()
	for _, name := range []string{"Second", "Third"} {
		g, err := groups.CreateContactGroup(x.ctx(), &accountv1.CreateContactGroupRequest{Name: name})
		require.NoError(r.t, err)
		_, err = groups.AddContacts(x.ctx(), &accountv1.AddContactsRequest{ContactGroupId: g.GetContactGroup().GetId(), ContactIds: x.contacts[:300]})
		require.NoError(r.t, err)
		req.ContactGroupIds = append(req.ContactGroupIds, g.GetContactGroup().GetId())
	}
	all := slices.Sorted(slices.Values(x.contacts))
	excluded, early, deleted, late := all[0], all[1], all[len(all)-1], all[len(all)-2]
	req.ExcludeContactIds = []string{excluded}
	id, _ := x.midway(req)
	_, err := accountv1.NewContactServiceClient(r.accountConn).DeleteContact(x.ctx(), &accountv1.DeleteContactRequest{ContactId: deleted})
	require.NoError(r.t, err)
	x.optOut(late)
	x.optOut(early)
	r.worker.kill()
	r.expire()
	r.worker.start()
	r.eventually("the fan-out is over", "SELECT count(*) = 0 FROM fanout_jobs")
	gone := []string{excluded, deleted, late}
	x.sends[id] = slices.DeleteFunc(all, func(c string) bool { return slices.Contains(gone, c) })
	r.then = func() {
		var skipped int
		require.NoError(r.t, r.sql.QueryRow(r.t.Context(), "SELECT skipped_count FROM group_messages WHERE id = $1", id).Scan(&skipped))
		require.Equal(r.t, 2, skipped, "the excluded one, and who opted out before it was read")
	}
	r.did("one send to %d of %d contacts in three groups", len(x.sends[id]), len(x.contacts))
}

// contactsAway takes the account service, and then its database, from the middle of a
// send: it waits, says nothing wrong of itself, and goes on where it was.
func contactsAway(r *trial) {
	x := r.tenant(1100)
	breaks := map[string]func(){
		"the service stalls": r.accounts.Stall,
		"the service is cut": func() {
			r.accounts.Refuse()
			r.accounts.Reset()
		},
		"its database stalls": r.accountDB.Stall,
		"its database is cut": func() {
			r.accountDB.Refuse()
			r.accountDB.Reset()
		},
	}
	for _, what := range slices.Sorted(maps.Keys(breaks)) {
		id, goOn := x.midway(x.toGroup())
		breaks[what]()
		var epoch int
		require.NoError(r.t, r.sql.QueryRow(r.t.Context(), "SELECT epoch FROM fanout_jobs").Scan(&epoch))
		r.expire()
		r.eventually(what+": another takes it, and finds nobody to ask", "SELECT count(*) > 0 FROM fanout_jobs WHERE epoch > $1", epoch)
		goOn()
		var status string
		require.NoError(r.t, r.sql.QueryRow(r.t.Context(), "SELECT status FROM group_messages WHERE id = $1", id).Scan(&status))
		require.Equal(r.t, "processing", status, what)
		require.Positive(r.t, r.count("fanout_jobs"), what)
		for _, p := range []*fault.Proxy{r.accounts, r.accountDB} {
			require.NoError(r.t, p.Pass())
		}
		r.eventually("the send has its recipients", "SELECT total_recipients = $2 FROM group_messages WHERE id = $1", id, len(x.contacts))
	}
	r.worker.kill()
	r.worker.start()
	r.did("%d breaks in as many sends to %d", len(breaks), len(x.contacts))
}

// manyRecipients sends to 100 000.
func manyRecipients(r *trial) {
	x := r.tenant(100_000)
	r.worker.forgetPeak()
	began := r.now()
	x.send()
	require.Eventually(r.t, func() bool { return r.count("fanout_jobs") == 0 && r.count("messages") == len(x.contacts) }, patience, 50*time.Millisecond)
	took := r.now().Sub(began)
	require.Eventually(r.t, func() bool { return r.count("dispatch_chunks") == 0 }, patience, 50*time.Millisecond)
	peak := r.worker.peakMiB()
	require.LessOrEqual(r.t, took, time.Minute)
	require.LessOrEqual(r.t, peak, 256, "MiB resident")
	r.did("one send to %d: rows in %.1f s, worker at most %d MiB", len(x.contacts), took.Seconds(), peak)
}

// unfilled sends a template to contacts of which one in a hundred has nothing for it.
func unfilled(r *trial) {
	x := r.tenant(0)
	tp, err := messagingv1.NewTemplateServiceClient(r.messagingConn).CreateTemplate(x.ctx(), &messagingv1.CreateTemplateRequest{
		Name: "By name", Subject: "Hello", Body: "Dear {LAST_NAME}, hello.", FallbackStrategy: messagingv1.FallbackStrategy_FALLBACK_STRATEGY_SKIP_CONTACT,
	})
	require.NoError(r.t, err)
	x.template = tp.GetTemplate().GetId()
	x.members(600, func(i int, c *accountv1.ContactInput) {
		if i%100 != 50 {
			c.LastName = "Chaos"
		}
	})
	id := x.send()
	x.sends[id] = nil
	for i, c := range x.contacts {
		if i%100 != 50 {
			x.sends[id] = append(x.sends[id], c)
		}
	}
	r.then = func() {
		var skipped, sent int
		require.NoError(r.t, r.sql.QueryRow(r.t.Context(), "SELECT skipped_count, sent_count FROM group_messages WHERE id = $1", id).Scan(&skipped, &sent))
		require.Equal(r.t, []int{6, 594}, []int{skipped, sent})
		var reasons int
		require.NoError(r.t, r.sql.QueryRow(r.t.Context(), "SELECT count(*) FROM group_message_skips WHERE reason = 'unresolved_variable'").Scan(&reasons))
		require.Equal(r.t, 6, reasons)
	}
	r.did("one send to %d of %d", len(x.sends[id]), len(x.contacts))
}

// optOut puts a contact's address on the list.
func (x *tenant) optOut(contact string) {
	x.t.Helper()
	address := fmt.Sprintf("person%d@%s.example", slices.Index(x.contacts, contact), x.account)
	_, err := messagingv1.NewSuppressionServiceClient(x.messagingConn).CreateSuppression(x.ctx(), &messagingv1.CreateSuppressionRequest{
		ChannelType: messagingv1.ChannelType_CHANNEL_TYPE_EMAIL, Address: address, Reason: messagingv1.SuppressionReason_SUPPRESSION_REASON_MANUAL,
	})
	require.NoError(x.t, err)
}
