package pg_test

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/pg"
)

// serversState are the SQLSTATEs of classes 08, 25, 40, 53, 55, 57 and 58 (PostgreSQL 18,
// appendix A), and whether one is the server's state, which is UNAVAILABLE. The others are
// faults of our statements.
func serversState() map[string]bool {
	states := map[string]bool{
		"25006": true,                                // read only: a standby, or an operator's will
		"25P03": true, "25P04": true, "25000": false, // idle in, or all of, a transaction took too long
		"25001": false, "25002": false, "25003": false, "25004": false, "25005": false, "25007": false, "25008": false, "25P01": false, "25P02": false,
		"40001": true, "40003": true, "40P01": true, "40000": false, "40002": false, // a rival was first
		"55P03": true, "55000": false, "55006": false, "55P02": false, "55P04": false, // a lock was not to be had
	}
	for _, code := range strings.Fields(`08000 08001 08003 08004 08006 08007 08P01 53000 53100 53200 53300 53400
		57000 57014 57P01 57P02 57P03 57P04 57P05 58000 58030 58P01 58P02 58P03`) {
		states[code] = true
	}
	return states
}

// TestServersState: what a server cannot do now is UNAVAILABLE with a time to try again,
// whichever way the statement was run, and never the caller's fault nor ours.
func TestServersState(t *testing.T) {
	t.Parallel()
	db := open(t)
	for code, away := range serversState() {
		t.Run(code, func(t *testing.T) {
			raise := "DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '" + code + "'; END $$"
			for name, run := range ways() {
				err := run(t.Context(), db, raise)
				require.Error(t, err)
				if !away {
					require.True(t, apierr.HasReason(err, errorv1.Reason_REASON_INTERNAL), "%s: %v", name, err)
					continue
				}
				require.True(t, unavailable(err), "%s: %v", name, err)
				require.GreaterOrEqual(t, apierr.From(err).RetryAfter, time.Second, name)
			}
		})
	}
}

// TestServersStateIsComplete reads the list of the installed server.
func TestServersStateIsComplete(t *testing.T) {
	t.Parallel()
	lists, err := filepath.Glob("/usr/share/postgresql/*/errcodes.txt")
	require.NoError(t, err)
	states := serversState()
	for _, list := range lists {
		b, err := os.ReadFile(list)
		require.NoError(t, err)
		for _, line := range regexp.MustCompile(`(?m)^(08|25|40|53|55|57|58)\w{3} +E`).FindAllString(string(b), -1) {
			require.Contains(t, states, line[:5], "%s: say in the table whose fault it is", list)
		}
	}
}

// TestReadOnlyIsLeft: after a failover the pool leaves a server that has become a standby.
func TestReadOnlyIsLeft(t *testing.T) {
	t.Parallel()
	db, p := behind(t, 2)
	before := p.Opened()
	readOnly := db.With(pg.Set("transaction_read_only", "on"))
	err := readOnly.InTx(t.Context(), nil, func(tx *pg.Tx) error {
		_, err := tx.Exec(t.Context(), "CREATE TEMP TABLE t (n int)")
		if err != nil {
			return err
		}
		_, err = tx.Exec(t.Context(), "DELETE FROM things")
		return err
	})
	require.True(t, unavailable(err), "%v", err)
	_, err = db.Exec(t.Context(), "SELECT 1")
	require.NoError(t, err)
	require.Greater(t, p.Opened(), before)
}

// TestLocksAreWaitedForInTime: a statement that waits for a lock is UNAVAILABLE within
// the limit, and the connection stays good.
func TestLocksAreWaitedForInTime(t *testing.T) {
	t.Parallel()
	db := open(t)
	err := db.InTx(t.Context(), nil, func(tx *pg.Tx) error {
		if _, err := tx.Exec(t.Context(), "SELECT pg_advisory_xact_lock(1)"); err != nil {
			return err
		}
		rival := db.With(pg.Set("lock_timeout", "50")).InTx(t.Context(), nil, func(tx *pg.Tx) error {
			_, err := tx.Exec(context.Background(), "SELECT pg_advisory_xact_lock(1)")
			return err
		})
		require.True(t, unavailable(rival), "%v", rival)
		require.ErrorContains(t, rival, "lock timeout")
		return nil
	})
	require.NoError(t, err)
}
