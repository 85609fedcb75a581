package chaos_test

import (
	"context"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/turumba/turumba/e2e/chaos/fault"
	accountv1 "github.com/turumba/turumba/gen/turumba/account/v1"
)

// silentRows make open connections silent while new ones work, as a failover, a frozen host
// or a NAT table that lost its state do (ADR 0040).
func silentRows() []row {
	return []row{
		{"F-80", "the worker's connections to the database fall silent, idle", quick, alone, workerSilentIdle},
		{"F-81", "the worker's connections to the database fall silent in a send", quick, alone, workerSilentSending},
		{"F-82", "messaging's connections to the database fall silent under load", quick, alone, messagingSilent},
		{"F-83", "the account service's connections to the database fall silent", quick, alone, accountSilent},
		{"F-84", "connections to the broker fall silent, idle and in a send", quick, alone, brokerHalfOpen},
		{"F-79", "the database becomes read-only", quick, alone, readOnly},
	}
}

// goesOn is within which time work goes on after connections to the database fell silent.
const goesOn = 15 * time.Second

func workerSilentIdle(r *trial) {
	x := r.tenant(0)
	x.messages(4)
	r.eventually("all are sent", "SELECT count(*) = 0 FROM messages WHERE status <> 'sent'")
	conns := r.silence(r.workerDB)
	took := stopwatch()
	x.messages(r.times(20))
	r.within(goesOn, "all are sent", func() bool { return r.unsent() == 0 })
	r.did("%d connections silent, %d messages sent within %s", conns, len(x.accepted), took())
}

func workerSilentSending(r *trial) {
	x := r.tenant(r.times(3000))
	slow(r.t, r.simulator, 20)
	defer slow(r.t, r.simulator, 0)
	x.send()
	r.eventually("part is sent", "SELECT count(*) > 20 FROM messages WHERE status = 'sent'")
	conns := r.silence(r.workerDB)
	before := r.sent()
	// What was on its way at the silence may be stored late; something new is later still.
	took := r.within(goesOn, "it goes on", func() bool { return r.sent() > before+singlesOfChannel })
	slow(r.t, r.simulator, 0)
	r.eventually("all are sent", "SELECT count(*) = 0 FROM messages WHERE status <> 'sent'")
	r.did("%d connections silent, the send went on after %s", conns, took)
}

func messagingSilent(r *trial) {
	x := r.tenant(0)
	l := x.load(4)
	l.until(r.times(40))
	conns := r.silence(r.apiDB)
	took := r.within(goesOn, "calls are answered", func() bool {
		ctx, cancel := context.WithTimeout(x.ctx(), 2*time.Second)
		defer cancel()
		_, err := x.create(ctx, "after")
		return err == nil
	})
	l.stop()
	for _, err := range l.errs {
		require.Contains(r.t, []codes.Code{codes.Unavailable, codes.DeadlineExceeded}, status.Code(err), "%v", err)
	}
	r.did("%d connections silent, answered again after %s, %d calls failed", conns, took, len(l.errs))
}

func accountSilent(r *trial) {
	x := r.tenant(0)
	conns := r.silence(r.accountDB)
	took := r.within(goesOn, "contacts are stored", func() bool {
		for range 8 {
			if x.addContact() != nil {
				return false
			}
		}
		return true
	})
	r.did("%d connections silent, contacts are stored again within %s", conns, took)
}

func (x *tenant) addContact() error {
	ctx, cancel := context.WithTimeout(x.ctx(), callLimit)
	defer cancel()
	_, err := accountv1.NewContactServiceClient(x.accountConn).CreateContact(ctx, &accountv1.CreateContactRequest{FirstName: "Late"})
	return err
}

func brokerHalfOpen(r *trial) {
	x := r.tenant(r.times(1000))
	x.messages(4)
	r.eventually("all are sent", "SELECT count(*) = 0 FROM messages WHERE status <> 'sent'")
	conns := r.silence(r.amqp)
	began := stopwatch()
	x.messages(5)
	poll := r.within(2*time.Second+busy, "all are sent by the poll", func() bool { return r.unsent() == 0 })
	relayed := r.within(25*time.Second-began(), "all is published", func() bool { return r.unpublished() == 0 })
	x.send()
	r.eventually("part is sent", "SELECT count(*) > 20 FROM messages WHERE status = 'sent'")
	conns += r.silence(r.amqp)
	r.eventually("all are sent", "SELECT count(*) = 0 FROM messages WHERE status <> 'sent'")
	r.within(25*time.Second, "all is published", func() bool { return r.unpublished() == 0 })
	r.did("%d connections silent, sent by the poll within %s, published within %s", conns, poll, relayed)
}

// readOnly makes the server a reader, as a standby is: calls that change something are
// UNAVAILABLE, with a time to try again, until it takes changes again.
func readOnly(r *trial) {
	x := r.tenant(0)
	x.messages(1)
	set := func(sql string) {
		_, err := r.sql.Exec(r.t.Context(), sql)
		require.NoError(r.t, err)
		_, err = r.sql.Exec(r.t.Context(), "SELECT pg_reload_conf()")
		require.NoError(r.t, err)
	}
	set("ALTER SYSTEM SET default_transaction_read_only = on")
	key := uuid.NewString()
	var last error
	r.within(goesOn, "calls are refused", func() bool {
		_, last = x.call(x.withKey(key), "one")
		return last != nil
	})
	require.Equal(r.t, codes.Unavailable, status.Code(last), "%v", last)
	var retry bool
	for _, d := range status.Convert(last).Details() {
		_, is := d.(*errdetails.RetryInfo)
		retry = retry || is
	}
	require.True(r.t, retry, "it says when to try again")
	set("ALTER SYSTEM RESET default_transaction_read_only")
	took := r.within(goesOn, "calls are answered", func() bool {
		_, err := x.create(x.withKey(key), "one")
		return err == nil
	})
	r.did("refused with a time to try again, answered %s after", took)
}

// silence makes what is open silent.
func (r *trial) silence(p *fault.Proxy) int {
	r.t.Helper()
	conns := p.Silence()
	require.Positive(r.t, conns)
	return conns
}

func (r *trial) unsent() (n int) {
	r.t.Helper()
	require.NoError(r.t, r.sql.QueryRow(r.t.Context(), "SELECT count(*) FROM messages WHERE status <> 'sent'").Scan(&n))
	return n
}

func (r *trial) sent() (n int) {
	r.t.Helper()
	require.NoError(r.t, r.sql.QueryRow(r.t.Context(), "SELECT count(*) FROM messages WHERE status = 'sent'").Scan(&n))
	return n
}
