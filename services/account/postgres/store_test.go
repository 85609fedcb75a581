package postgres_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/pg/pgtest"
	account "github.com/turumba/turumba/services/account"
	"github.com/turumba/turumba/services/account/postgres"
	"github.com/turumba/turumba/services/account/storetest"
)

func TestContacts(t *testing.T) {
	t.Parallel()
	storetest.Run(t, "postgresql", nil, func(t *testing.T) storetest.Stores {
		t.Helper()
		store, err := postgres.New(pgtest.New(t, postgres.Migrations()...).Open(t, pg.RoleAPI), make([]byte, 32), "http://test", account.Quotas{})
		require.NoError(t, err)
		return storetest.Stores{Contacts: store, Batches: store, Journal: store}
	})
}
