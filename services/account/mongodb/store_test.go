package mongodb_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/mongodb"
	"github.com/turumba/turumba/kit/mongodb/mongotest"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/pg/pgtest"
	account "github.com/turumba/turumba/services/account"
	documents "github.com/turumba/turumba/services/account/mongodb"
	"github.com/turumba/turumba/services/account/postgres"
	"github.com/turumba/turumba/services/account/storetest"
)

// open makes an empty store on a server.
func open(t *testing.T, server string, c clock.Clock) (*documents.Store, *postgres.Store) {
	t.Helper()
	journal, err := postgres.New(pgtest.New(t, postgres.Migrations()...).OpenAt(t, pg.RoleAPI, c), make([]byte, 32), "http://test", account.Quotas{})
	require.NoError(t, err)
	db, err := mongodb.Open(t.Context(), mongodb.Config{URL: mongotest.New(t, server), Name: "test", Clock: c})
	require.NoError(t, err)
	t.Cleanup(db.Close)
	store, err := documents.New(t.Context(), documents.Config{DB: db, Journal: journal, TokenKey: make([]byte, 32), IDKey: make([]byte, 32)})
	require.NoError(t, err)
	return store, journal
}

// cannot are the cases that a server is not able to pass. FerretDB reads the documents
// that an update matches and then writes them: two updates of the same version both
// match, where MongoDB lets one (mongotest shows it).
var cannot = map[string][]string{mongotest.FerretDB: {"updates at once lose nothing"}}

func TestContacts(t *testing.T) {
	t.Parallel()
	for name, server := range mongotest.Servers(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			storetest.Run(t, name, cannot[name], func(t *testing.T) storetest.Stores {
				t.Helper()
				store, journal := open(t, server, clock.System())
				return storetest.Stores{Contacts: store, Batches: store, Journal: journal}
			})
		})
	}
}
