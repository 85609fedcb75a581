package postgres_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/pg/pgtest"
	account "github.com/turumba/turumba/services/account"
	"github.com/turumba/turumba/services/account/postgres"
)

// TestMailLease: a mail is one sender's for as long as the lease, comes again after the
// pause that its attempts have earned, and a release of an older claim changes nothing.
func TestMailLease(t *testing.T) {
	t.Parallel()
	now := clock.NewFake(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC))
	store, err := postgres.New(pgtest.New(t, postgres.Migrations()...).OpenAt(t, pg.RoleAPI, now), make([]byte, 32), "http://test", account.Quotas{})
	require.NoError(t, err)
	ctx, woken := t.Context(), 0
	store.OnMail(func() { woken++ })
	queue := func(ctx context.Context, tx *pg.Tx) error {
		return store.QueueMail(ctx, tx, account.NewID(), "notice", []byte("sealed"), now.Now().Add(24*time.Hour))
	}
	require.NoError(t, store.DB().InTx(ctx, nil, func(tx *pg.Tx) error { return queue(ctx, tx) }))
	require.Equal(t, 1, woken)

	const lease, retry = 35 * time.Second, 15 * time.Second
	claim := func() *postgres.Mail {
		m, err := store.ClaimMail(ctx, "reset", lease)
		require.NoError(t, err)
		return m
	}
	first := claim()
	require.NotNil(t, first)
	now.Advance(lease - time.Millisecond)
	require.Nil(t, claim(), "its sender may still be at it")
	now.Advance(time.Millisecond)
	second := claim()
	require.NotNil(t, second, "its sender is gone")
	require.NoError(t, store.ReleaseMail(ctx, first, 0))
	require.Nil(t, claim(), "the release of an older claim")
	require.NoError(t, store.ReleaseMail(ctx, second, retry))
	now.Advance(2*retry - time.Millisecond)
	require.Nil(t, claim())
	now.Advance(time.Millisecond)
	third := claim()
	require.NotNil(t, third, "doubled by the second attempt")
	require.NoError(t, store.ReleaseMail(ctx, third, 0))
	require.NotNil(t, claim(), "after a stop at once")
}

// TestMailsHaveTurns: mails of one purpose hold up no other, and a purpose that has none
// leaves its turn to the one that is due longest.
func TestMailsHaveTurns(t *testing.T) {
	t.Parallel()
	now := clock.NewFake(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC))
	store, err := postgres.New(pgtest.New(t, postgres.Migrations()...).OpenAt(t, pg.RoleAPI, now), make([]byte, 32), "http://test", account.Quotas{})
	require.NoError(t, err)
	ctx := t.Context()
	queue := func(purpose, says string) {
		now.Advance(time.Second)
		require.NoError(t, store.DB().InTx(ctx, nil, func(tx *pg.Tx) error {
			return store.QueueMail(ctx, tx, account.NewID(), purpose, []byte(says), now.Now().Add(time.Hour))
		}))
	}
	for range 20 {
		queue("registration", "a code")
	}
	queue("reset", "a reset")
	for most, want := range map[int]bool{20: true, 21: false} {
		full, err := store.MailsWait(ctx, "registration", most)
		require.NoError(t, err)
		require.Equal(t, want, full)
	}
	claim := func(purpose string) string {
		m, err := store.ClaimMail(ctx, purpose, time.Minute)
		require.NoError(t, err)
		return string(m.Sealed)
	}
	require.Equal(t, "a reset", claim("reset"))
	require.Equal(t, "a code", claim("reset"))
	require.Equal(t, "a code", claim("registration"))
}
