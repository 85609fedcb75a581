package pg

// Busy is how many connections of the pool are in use.
func (db *DB) Busy() int { return int(db.pool.Stat().AcquiredConns()) }
