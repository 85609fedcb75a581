package pg_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/pg/pgtest"
)

// TestIDsAreStrings sends ids as strings, alone and in lists, and reads them back.
func TestIDsAreStrings(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t).Open(t, pg.RoleAPI)
	const a, b = "0190a5c8-1111-7000-8000-000000000001", "0190a5c8-1111-7000-8000-000000000002"
	var one string
	var list []string
	require.NoError(t, db.QueryRow(t.Context(), "SELECT $1::uuid, $2::uuid[]", a, []string{a, b}).Scan(&one, &list))
	require.Equal(t, a, one)
	require.Equal(t, []string{a, b}, list)

	var none *string
	require.NoError(t, db.QueryRow(t.Context(), "SELECT $1::uuid", none).Scan(&none))
	require.Nil(t, none)
	require.NoError(t, db.QueryRow(t.Context(), "SELECT $1::uuid[]", []string{}).Scan(&list))
	require.Empty(t, list)

	err := db.QueryRow(t.Context(), "SELECT $1::uuid[]", []string{a, "not an id"}).Scan(&list)
	require.ErrorContains(t, err, "not an id")
}

// TestArraysOfStrings sends arrays of every registered type and reads them back as
// PostgreSQL understood them.
func TestArraysOfStrings(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t).Open(t, pg.RoleAPI)
	const a, b = "0190a5c8-1111-7000-8000-000000000001", "0190a5c8-1111-7000-8000-000000000002"
	for name, c := range map[string]struct {
		sql  string
		arg  any
		want string // as PostgreSQL writes it; empty for NULL
	}{
		"ids":                {"$1::uuid[]", []string{a, b}, "{" + a + "," + b + "}"},
		"ids and none":       {"$1::uuid[]", pg.Nullable{"", a, ""}, "{NULL," + a + ",NULL}"},
		"texts":              {"$1::text[]", []string{"", "a\"b", "c,d", "ä\n"}, "{\"\",\"a\\\"b\",\"c,d\",\"ä\n\"}"},
		"texts and none":     {"$1::text[]", pg.Nullable{"x", ""}, "{x,NULL}"},
		"objects":            {"$1::jsonb[]", []string{`{"A": "ä"}`, `null`}, "{\"{\\\"A\\\": \\\"ä\\\"}\",\"null\"}"},
		"nothing":            {"$1::text[]", []string{}, "{}"},
		"nothing or none":    {"$1::uuid[]", pg.Nullable{}, "{}"},
		"no array":           {"$1::text[]", []string(nil), ""},
		"no array of either": {"$1::uuid[]", pg.Nullable(nil), ""},
		"others as before":   {"$1::text[]", []*string{nil}, "{NULL}"},
		"ids as text":        {"$1::text[]::uuid[]", []string{a}, "{" + a + "}"},
	} {
		t.Run(name, func(t *testing.T) {
			var got *string
			require.NoError(t, db.QueryRow(t.Context(), "SELECT ("+c.sql+")::text", c.arg).Scan(&got))
			if c.want == "" {
				require.Nil(t, got)
				return
			}
			require.NotNil(t, got)
			require.Equal(t, c.want, *got)
		})
	}
	var list []string
	require.NoError(t, db.QueryRow(t.Context(), "SELECT $1::text[]", []string{"x", "y"}).Scan(&list))
	require.Equal(t, []string{"x", "y"}, list)
	var nulls []*string
	require.NoError(t, db.QueryRow(t.Context(), "SELECT $1::text[]", pg.Nullable{"x", ""}).Scan(&nulls))
	require.Nil(t, nulls[1])
}
