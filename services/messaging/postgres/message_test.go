package postgres

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/pg/pgtest"
	"github.com/turumba/turumba/services/messaging"
)

// TestTimeInID: nobody writes a message whose created_at is not the millisecond in its
// id, by which its partition is found (decision E5).
func TestTimeInID(t *testing.T) {
	t.Parallel()
	d := pgtest.New(t, Migrations()...)
	at := clock.System().Now().UTC().Truncate(time.Millisecond)
	for _, role := range []string{pg.RoleAPI, pg.RoleWorker} {
		db := d.Open(t, role)
		for name, c := range map[string]struct {
			off     time.Duration
			refused bool
		}{
			"its time":             {},
			"a millisecond later":  {time.Millisecond, true},
			"a millisecond before": {-time.Millisecond, true},
			"a microsecond later":  {time.Microsecond, true},
			"a day later":          {24 * time.Hour, true},
		} {
			t.Run(role+" "+name, func(t *testing.T) {
				account := messaging.NewID()
				err := db.InTx(t.Context(), []string{account}, func(tx *pg.Tx) error {
					_, err := tx.Exec(t.Context(), `
						INSERT INTO messages (id, account_id, status, delivery_address, created_at, updated_at)
						VALUES ($1, $2, 'queued', 'a@example.org', $3, $3)`, messaging.IDsAt(at, 0, 1)[0], account, at.Add(c.off))
					return err
				})
				if c.refused {
					require.ErrorContains(t, err, "row-level security policy")
				} else {
					require.NoError(t, err)
				}
			})
		}
	}
}
