package postgres

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/pg/pgtest"
	"github.com/turumba/turumba/services/messaging"
)

// TestTimesInIDs: created_at is the time inside the id. Who writes through the parent cannot
// write another; the checker finds it where the worker has named the month's partition.
func TestTimesInIDs(t *testing.T) {
	t.Parallel()
	d := pgtest.New(t, Migrations()...)
	admin, err := pgxpool.New(t.Context(), d.URL)
	require.NoError(t, err)
	t.Cleanup(admin.Close)
	insert := func(role, table string, at time.Time) error {
		return d.Open(t, role).InTx(t.Context(), []string{someAccount}, func(tx *pg.Tx) error {
			_, err := tx.Exec(t.Context(), "INSERT INTO "+table+" (id, account_id, channel_id, status, delivery_address, created_at, updated_at) VALUES ($1, $2, $2, 'sent', 'a@example.org', $3, $3)",
				messaging.IDsAt(tx.Now, 0, 1)[0], someAccount, at)
			return err
		})
	}
	other := clock.System().Now().UTC().Truncate(time.Millisecond).Add(-7 * time.Millisecond)
	require.ErrorContains(t, insert(pg.RoleAPI, "messages", other), "created_at_in_id")
	require.ErrorContains(t, insert(pg.RoleWorker, "messages", other), "created_at_in_id")
	problems, err := CheckLedger(t.Context(), admin)
	require.NoError(t, err)
	require.Empty(t, problems)

	require.NoError(t, insert(pg.RoleWorker, partitionOf(other, other), other))
	problems, err = CheckLedger(t.Context(), admin)
	require.NoError(t, err)
	require.Len(t, problems, 1)
	require.Contains(t, problems[0], "its id of")
}

const someAccount = "01980000-0000-7000-8000-000000000001"
