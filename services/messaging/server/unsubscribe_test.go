package server_test

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	messagingv1 "github.com/turumba/turumba/gen/turumba/messaging/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/auth"
	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/grpcserver"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/pg/pgtest"
	"github.com/turumba/turumba/kit/query"
	"github.com/turumba/turumba/kit/telemetry"
	"github.com/turumba/turumba/services/messaging"
	"github.com/turumba/turumba/services/messaging/postgres"
	"github.com/turumba/turumba/services/messaging/server"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, pgtest.Goleak()...) }

// nobody verifies no token: the calls here have none.
type nobody struct{}

func (nobody) Verify(context.Context, string) (auth.Claims, error) {
	return auth.Claims{}, errors.New("no users here")
}

func (nobody) Context(context.Context, auth.Claims) (auth.Caller, error) {
	return auth.Caller{}, errors.New("no users here")
}

// TestUnsubscribe: a link suppresses its address for its account and type, once, without
// a login, and a look at it suppresses nothing.
func TestUnsubscribe(t *testing.T) {
	t.Parallel()
	d := pgtest.New(t, postgres.Migrations()...)
	store, err := postgres.New(d.Open(t, pg.RoleAPI), make([]byte, 32), func() {})
	require.NoError(t, err)
	links, err := messaging.NewUnsubscriber("https://mail.example.org", bytes.Repeat([]byte{1}, 32))
	require.NoError(t, err)
	s, err := grpcserver.New(grpcserver.Config{Name: "messaging", Logger: telemetry.Discard(), Clock: clock.System(), Verifier: nobody{}, Context: nobody{}})
	require.NoError(t, err)
	server.Register(s, server.Config{Store: store, Clock: clock.System(), Unsubscriber: links})
	client := messagingv1.NewSuppressionServiceClient(s.Conn(""))
	account := messaging.NewID()
	token := links.Token(messaging.WayOut{AccountID: account, ChannelType: messaging.TypeEmail, Address: "Bob@example.org"})
	suppressed := func() []*messaging.Suppression {
		page, err := store.Suppressions(t.Context(), []string{account}, query.Request{Limit: 10})
		require.NoError(t, err)
		return page.Data
	}
	ask := func(token string, checkOnly bool) error {
		_, err := client.Unsubscribe(t.Context(), &messagingv1.UnsubscribeRequest{Token: token, CheckOnly: checkOnly})
		return err
	}
	require.NoError(t, ask(token, true))
	require.Empty(t, suppressed())
	require.NoError(t, ask(token, false))
	require.NoError(t, ask(token, false), "twice is once")
	list := suppressed()
	require.Len(t, list, 1)
	require.Equal(t, []string{"email", "bob@example.org", messaging.SuppressedUnsubscribe}, []string{list[0].ChannelType, list[0].Address, list[0].Reason})
	for _, bad := range []string{token[1:], token[:len(token)-1], "AAAA"} {
		require.True(t, apierr.HasReason(ask(bad, false), errorv1.Reason_REASON_NOT_FOUND))
	}
	require.Len(t, suppressed(), 1)
}
