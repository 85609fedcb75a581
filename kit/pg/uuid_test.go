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
	require.NoError(t, db.Pool().QueryRow(t.Context(), "SELECT $1::uuid, $2::uuid[]", a, []string{a, b}).Scan(&one, &list))
	require.Equal(t, a, one)
	require.Equal(t, []string{a, b}, list)

	var none *string
	require.NoError(t, db.Pool().QueryRow(t.Context(), "SELECT $1::uuid", none).Scan(&none))
	require.Nil(t, none)
	require.NoError(t, db.Pool().QueryRow(t.Context(), "SELECT $1::uuid[]", []string{}).Scan(&list))
	require.Empty(t, list)

	err := db.Pool().QueryRow(t.Context(), "SELECT $1::uuid[]", []string{a, "not an id"}).Scan(&list)
	require.ErrorContains(t, err, "not an id")
}
