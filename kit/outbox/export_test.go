package outbox

import "github.com/turumba/turumba/kit/pg"

// ClaimSQL is the statement whose plan the tests watch.
const ClaimSQL = claimSQL

// BatchSettings are the settings of its transaction.
func BatchSettings() []pg.Setting { return batchSettings() }
