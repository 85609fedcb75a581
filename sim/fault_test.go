package sim_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/sim"
)

func faulty(t *testing.T, server *running, faults ...sim.Fault) {
	t.Helper()
	require.NoError(t, server.SetControl(sim.Control{Faults: faults}))
}

// TestFaultsOfTexts holds what the HTTP face does against the table of kinds.
func TestFaultsOfTexts(t *testing.T) {
	t.Parallel()
	server := start(t, sim.Config{})
	taken := 0
	for _, kind := range sim.FaultKinds() {
		faulty(t, server, sim.Fault{Kind: kind.Name, Rate: 1, RetryAfter: 7})
		got := sms(t, server, text("+251911000001", "x"))
		script := kind.Phone
		switch {
		case script.Reset:
			require.ErrorIs(t, got.err, syscall.ECONNRESET, kind.Name)
		case script.Silent:
			require.ErrorIs(t, got.err, context.DeadlineExceeded, kind.Name)
		case kind.Name == "slow":
			require.Equal(t, http.StatusCreated, got.status)
		default:
			require.Equal(t, script.Status, got.status, kind.Name)
			require.Equal(t, "7", got.header.Get("Retry-After"))
			require.True(t, strings.HasPrefix(got.raw, script.Body), kind.Name)
			require.GreaterOrEqual(t, len(got.raw), script.Fill, kind.Name)
		}
		if script.Accept || kind.Name == "slow" {
			taken++
		}
		require.Len(t, records(t, server), taken, "%s: the journal is written before the answer", kind.Name)
	}
	require.Equal(t, http.StatusBadRequest, func() int {
		faulty(t, server, sim.Fault{Kind: "silent", Rate: 1})
		return sms(t, server, text("+15005550001", "x")).status
	}(), "what the number asks for comes first")
}

// TestFaultsOfMails holds what SMTP does against the table of kinds.
func TestFaultsOfMails(t *testing.T) {
	t.Parallel()
	server := start(t, sim.Config{})
	taken := 0
	for _, kind := range sim.FaultKinds() {
		if kind.Mail.Silent {
			continue // TestScripts waits for the prefix that does the same
		}
		faulty(t, server, sim.Fault{Kind: kind.Name, Rate: 1})
		err := send(t, server, "a@x.test", mailTo("1@x", "hi"))
		switch script := kind.Mail; {
		case script.Reset:
			require.True(t, errors.Is(err, syscall.ECONNRESET) || errors.Is(err, io.EOF), "%s: %v", kind.Name, err)
		case script.Reply == "":
			require.NoError(t, err, kind.Name)
		case code(err) != 0:
			require.True(t, strings.HasPrefix(script.Reply, strconv.Itoa(code(err))), "%s: %v", kind.Name, err)
		default:
			require.Error(t, err, kind.Name)
			require.True(t, strings.HasPrefix(script.Reply, "<html>"), "%s: %v", kind.Name, err)
		}
		if kind.Mail.Accept {
			taken++
		}
		require.Len(t, records(t, server), taken, kind.Name)
	}
}

// TestFaultsMeetSome: a fault of one sender leaves the others alone, one that comes and
// goes is there half of the time, and every call is noted, whatever became of it.
func TestFaultsMeetSome(t *testing.T) {
	t.Parallel()
	server := start(t, sim.Config{})
	other := text("+251911000001", "x")
	other.Set("From", "Other")
	faulty(t, server, sim.Fault{Kind: "throttled", Rate: 1, From: "Other"}, sim.Fault{Kind: "slow", Rate: 1, LatencyMS: 1, FlapMS: 1 << 50})
	require.Equal(t, http.StatusTooManyRequests, sms(t, server, other).status)
	require.Equal(t, http.StatusCreated, sms(t, server, text("+251911000002", "x")).status)

	var noted struct{ Calls []sim.Call }
	require.NoError(t, json.Unmarshal([]byte(body(t, server.URL()+"/api/calls?from=Other")), &noted))
	require.Len(t, noted.Calls, 1)
	require.Equal(t, "throttled", noted.Calls[0].Fault)
	require.Equal(t, "+251911000001", noted.Calls[0].To)
	require.NoError(t, json.Unmarshal([]byte(body(t, server.URL()+"/api/calls?from="+url.QueryEscape("+15550001111"))), &noted))
	require.Len(t, noted.Calls, 1)
	require.Equal(t, "slow", noted.Calls[0].Fault)

	faulty(t, server, sim.Fault{Kind: "refused", Rate: 1, To: "+25192"})
	require.Equal(t, http.StatusBadRequest, sms(t, server, text("+251920000001", "x")).status)
	require.Equal(t, http.StatusCreated, sms(t, server, text("+251910000001", "x")).status, "only who is meant")
}

func TestFaultsAreChecked(t *testing.T) {
	t.Parallel()
	server := start(t, sim.Config{})
	for _, wrong := range []sim.Fault{
		{Kind: "nothing", Rate: 1}, {Kind: "slow"}, {Kind: "slow", Rate: 2}, {Kind: "slow", Rate: 1, LatencyMS: -1}, {Kind: "slow", Rate: 1, RetryAfter: -1},
	} {
		require.Error(t, server.SetControl(sim.Control{Faults: []sim.Fault{wrong}}), wrong)
	}
}
