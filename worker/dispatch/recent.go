package dispatch

import (
	"sync"
	"time"

	"github.com/turumba/turumba/services/messaging/postgres"
)

// recentLimit is how long what was read for one chunk serves the next ones.
const recentLimit = time.Second

// recent is what chunks that could be sent were last sent with, by channel and send. It
// spares chunks that come from memory a look into the database: the gate closes on
// whatever has changed since, and then all is read again.
type recent struct {
	mu   sync.Mutex
	read map[recentKey]recentWork
}

type recentKey struct{ channelID, groupID string }

type recentWork struct {
	postgres.Work
	at time.Time
}

func keyOf(c *postgres.Chunk) recentKey { return recentKey{c.ChannelID, c.GroupMessageID} }

func (r *recent) get(c *postgres.Chunk, now time.Time) (postgres.Work, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	w, ok := r.read[keyOf(c)]
	return w.Work, ok && now.Sub(w.at) < recentLimit
}

// put keeps what was read at a time, and forgets what is old.
func (r *recent) put(c *postgres.Chunk, w postgres.Work, at time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for k, old := range r.read {
		if at.Sub(old.at) >= recentLimit {
			delete(r.read, k)
		}
	}
	if r.read == nil {
		r.read = map[recentKey]recentWork{}
	}
	r.read[keyOf(c)] = recentWork{w, at}
}
