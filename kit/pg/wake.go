package pg

import (
	"slices"
	"sync"
)

// wakes are what is called after commits, by what they left behind.
type wakes struct {
	mu  sync.RWMutex
	all map[any][]func()
}

// OnWake calls do after each commit of a transaction of this database that asked for
// key by Tx.Wake. It is how a store tells those who work on what it keeps: the store
// names the kind of work where it writes the row, and nobody can forget to tell. do
// must not block; a wake is a hint, and who takes it looks into the database.
func (db *DB) OnWake(key any, do func()) {
	db.wakes.mu.Lock()
	defer db.wakes.mu.Unlock()
	if db.wakes.all == nil {
		db.wakes.all = map[any][]func(){}
	}
	db.wakes.all[key] = append(db.wakes.all[key], do)
}

// Wake calls what is registered for key once the transaction has committed, and not at
// all otherwise; once, however often it is asked for.
func (tx *Tx) Wake(key any) {
	if tx.db == nil || slices.Contains(tx.woken, key) {
		return
	}
	tx.woken = append(tx.woken, key)
	tx.OnCommit(func() { tx.db.wake(key) })
}

func (db *DB) wake(key any) {
	db.wakes.mu.RLock()
	defer db.wakes.mu.RUnlock()
	for _, do := range db.wakes.all[key] {
		do()
	}
}
