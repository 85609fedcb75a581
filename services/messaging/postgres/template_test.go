package postgres

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/pg/pgtest"
	"github.com/turumba/turumba/services/messaging"
)

// TestTemplateInUse: a template and a send that uses it cannot pass each other.
func TestTemplateInUse(t *testing.T) {
	t.Parallel()
	d := pgtest.New(t, Migrations()...)
	s, err := New(d.Open(t, pg.RoleAPI), make([]byte, 32), func() {})
	require.NoError(t, err)
	admin, err := pgxpool.New(t.Context(), d.URL)
	require.NoError(t, err)
	t.Cleanup(admin.Close)
	ctx, account := t.Context(), messaging.NewID()
	scope := []string{account}
	template := &messaging.Template{ID: messaging.NewID(), AccountID: account, Name: "T", Body: "x", IsActive: true}
	require.NoError(t, template.Prepare())
	require.NoError(t, s.DB().InTx(ctx, scope, func(tx *pg.Tx) error { return s.CreateTemplate(ctx, tx, template) }))
	draft := func() *messaging.GroupMessage {
		return &messaging.GroupMessage{
			ID: messaging.NewID(), AccountID: account, ChannelID: messaging.NewID(), TemplateID: template.ID,
			Status: messaging.GroupDraft, ContactGroupIDs: []string{messaging.NewID()},
		}
	}

	deleted := make(chan error, 1)
	g := draft()
	require.NoError(t, s.DB().InTx(ctx, scope, func(tx *pg.Tx) error {
		if err := s.CreateGroupMessage(ctx, tx, g, nil, messaging.Allowance{}); err != nil {
			return err
		}
		go func() { deleted <- s.DeleteTemplate(ctx, scope, template.ID) }()
		require.Eventually(t, func() bool {
			var waiting bool
			require.NoError(t, admin.QueryRow(ctx, `
				SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%FROM templates%FOR UPDATE')`).Scan(&waiting))
			return waiting
		}, 30*time.Second, 5*time.Millisecond)
		return nil
	}))
	require.True(t, apierr.HasReason(<-deleted, errorv1.Reason_REASON_IN_USE))

	require.NoError(t, s.DeleteGroupMessage(ctx, scope, g.ID))
	require.NoError(t, s.DeleteTemplate(ctx, scope, template.ID), "a deleted draft uses nothing")
	err = s.DB().InTx(ctx, scope, func(tx *pg.Tx) error { return s.CreateGroupMessage(ctx, tx, draft(), nil, messaging.Allowance{}) })
	require.True(t, apierr.HasReason(err, errorv1.Reason_REASON_NOT_FOUND))
}
