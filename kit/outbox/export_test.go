package outbox

// ClaimSQL is the statement whose plan the tests watch, BeginBatch the beginning
// of its transaction.
const (
	ClaimSQL   = claimSQL
	BeginBatch = beginBatch
)
