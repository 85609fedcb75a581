package bench_test

import (
	"context"
	"os"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/kit/pg/embedded"
)

// statementSettings lets the server count statements where BENCH_STATEMENTS is set.
func statementSettings() []string {
	if os.Getenv("BENCH_STATEMENTS") == "" {
		return nil
	}
	return []string{"shared_preload_libraries=pg_stat_statements", "pg_stat_statements.track_planning=on"}
}

// logStatements prints what the database spent its time with.
func logStatements(b *testing.B, s *embedded.Server, database string) {
	b.Helper()
	if os.Getenv("BENCH_STATEMENTS") == "" {
		return
	}
	b.Cleanup(func() {
		ctx := context.WithoutCancel(b.Context())
		conn, err := pgx.Connect(ctx, s.URL(database))
		require.NoError(b, err)
		defer func() { _ = conn.Close(ctx) }() // it was only read
		_, err = conn.Exec(ctx, "CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
		require.NoError(b, err)
		rows, err := conn.Query(ctx, `
			SELECT format('%s s exec, %s s plan, %s calls, %s ms each, %s rows, %s WAL kB: %s', round((total_exec_time/1000)::numeric, 2), round((total_plan_time/1000)::numeric, 2),
				calls, round(mean_exec_time::numeric, 3), rows, round(wal_bytes/1000), left(regexp_replace(query, '\s+', ' ', 'g'), 110))
			FROM pg_stat_statements ORDER BY total_exec_time + total_plan_time DESC LIMIT 25`)
		require.NoError(b, err)
		lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
		require.NoError(b, err)
		for _, line := range lines {
			b.Log(line)
		}
	})
}
