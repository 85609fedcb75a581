package streams

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/clock"
)

const (
	// every is the least time between two states of a watched row.
	every = 500 * time.Millisecond
	// repeatAfter is when a watcher is told the state once more although nothing changed,
	// so that its stream is not idle.
	repeatAfter = 30 * time.Second
	// lookLimit is how long one look may take.
	lookLimit = 5 * time.Second
	// maxRows is the most rows of one look.
	maxRows = 500
)

// State is a watched row at one time.
type State[T any] struct {
	// ID and Account say which row it is.
	ID, Account string
	// Changed is when the row was changed last.
	Changed time.Time
	// Final says that it will not change any more.
	Final bool
	// Row is what watchers are shown. They share it: nobody may change it.
	Row T
}

// Watcher looks at rows for everybody in the process who watches them: twice a second
// at all that are watched, in one statement for up to 500 of them, however many watch.
// The first who watches starts it, the last ends it.
type Watcher[T any] struct {
	look  func(ctx context.Context, scope, ids []string) ([]State[T], error)
	gone  error
	clock clock.Clock

	mu   sync.Mutex
	rows map[string]*watchedRow[T] // by id
	stop context.CancelFunc        // of the looking; nil while nobody watches
}

// watchedRow is a row and who watches it.
type watchedRow[T any] struct {
	account string
	last    State[T]
	seats   map[chan news[T]]struct{}
}

// news is what a watcher is told next: a state, or why there is none.
type news[T any] struct {
	state State[T]
	err   error
}

// NewWatcher returns a watcher of the rows that look reads: those of ids in the accounts
// of the scope that exist. gone is what is told of others.
func NewWatcher[T any](c clock.Clock, gone error, look func(ctx context.Context, scope, ids []string) ([]State[T], error)) *Watcher[T] {
	return &Watcher[T]{look: look, gone: gone, clock: c, rows: map[string]*watchedRow[T]{}}
}

// Watch sends the row at once, whenever it changed, and every 30 s, until it is final or
// ctx ends. Who may not see it by the scope is told that it is gone. A slow reader misses
// states, never the last one, and holds nobody up.
func (w *Watcher[T]) Watch(ctx context.Context, scope []string, id string, send func(T) error) error {
	now, err := w.first(ctx, scope, id)
	if err != nil {
		return err
	}
	if err := Settle(ctx, now.Account); err != nil {
		return err
	}
	seat := w.join(now)
	defer w.leave(id, seat)
	for {
		if err := send(now.Row); err != nil || now.Final {
			return err
		}
		if now, err = w.next(ctx, seat, now); err != nil {
			return err
		}
	}
}

// first is the row as the watcher may see it.
func (w *Watcher[T]) first(ctx context.Context, scope []string, id string) (State[T], error) {
	found, err := w.look(ctx, scope, []string{id})
	if err != nil {
		return State[T]{}, err
	}
	if len(found) == 0 {
		return State[T]{}, w.gone
	}
	return found[0], nil
}

// next waits for another state than now, or until it is time to repeat now.
func (w *Watcher[T]) next(ctx context.Context, seat <-chan news[T], now State[T]) (State[T], error) {
	repeat := w.clock.NewTimer(repeatAfter)
	defer repeat.Stop()
	for {
		select {
		case n := <-seat:
			if n.err != nil || !n.state.Changed.Equal(now.Changed) {
				return n.state, n.err
			}
		case <-repeat.C():
			return now, nil
		case <-ctx.Done():
			return now, context.Cause(ctx)
		}
	}
}

// join takes a seat at the row, from which what is newer than now is seen.
func (w *Watcher[T]) join(now State[T]) chan news[T] {
	w.mu.Lock()
	defer w.mu.Unlock()
	row := w.rows[now.ID]
	if row == nil {
		row = &watchedRow[T]{account: now.Account, last: now, seats: map[chan news[T]]struct{}{}}
		w.rows[now.ID] = row
	}
	seat := make(chan news[T], 1)
	row.seats[seat] = struct{}{}
	if row.last.Changed.After(now.Changed) {
		seat <- news[T]{state: row.last}
	}
	if w.stop == nil {
		ctx, stop := context.WithCancel(context.Background())
		w.stop = stop
		go w.run(ctx)
	}
	return seat
}

func (w *Watcher[T]) leave(id string, seat chan news[T]) {
	w.mu.Lock()
	defer w.mu.Unlock()
	row := w.rows[id]
	delete(row.seats, seat)
	if len(row.seats) == 0 {
		delete(w.rows, id)
	}
	if len(w.rows) == 0 && w.stop != nil {
		w.stop()
		w.stop = nil
	}
}

// run looks until nobody watches any more.
func (w *Watcher[T]) run(ctx context.Context) {
	for clock.Sleep(ctx, w.clock, every) == nil {
		watched := w.watched()
		ids := slices.Collect(maps.Keys(watched))
		for part := range slices.Chunk(ids, maxRows) {
			w.lookAt(ctx, watched, part)
		}
	}
}

// watched are the rows that somebody watches, and their accounts.
func (w *Watcher[T]) watched() map[string]string {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := make(map[string]string, len(w.rows))
	for id, row := range w.rows {
		out[id] = row.account
	}
	return out
}

// lookAt looks at some rows and tells their watchers.
func (w *Watcher[T]) lookAt(ctx context.Context, watched map[string]string, ids []string) {
	var scope []string
	for _, id := range ids {
		scope = append(scope, watched[id])
	}
	slices.Sort(scope)
	found, err := w.lookWithin(ctx, slices.Compact(scope), ids)
	if ctx.Err() != nil {
		return // those who watch now have another looker
	}
	states := make(map[string]State[T], len(found))
	for _, s := range found {
		states[s.ID] = s
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, id := range ids {
		state, exists := states[id]
		n := news[T]{state: state, err: err}
		if err == nil && !exists {
			n.err = w.gone
		}
		w.rows[id].tell(n)
	}
}

// lookWithin is a look with a limit. A panic in it is a failed look.
func (w *Watcher[T]) lookWithin(ctx context.Context, scope, ids []string) (found []State[T], err error) {
	ctx, cancel := context.WithTimeout(ctx, lookLimit)
	defer cancel()
	defer func() {
		if p := recover(); p != nil {
			err = apierr.Internal(fmt.Errorf("panic in a look: %v", p))
		}
	}()
	return w.look(ctx, scope, ids)
}

// tell gives news to all who watch the row; who has not taken earlier ones gets these
// instead. nil when nobody watches it any more.
func (r *watchedRow[T]) tell(n news[T]) {
	switch {
	case r == nil:
		return
	case n.err == nil && n.state.Changed.Equal(r.last.Changed):
		return
	case n.err == nil:
		r.last = n.state
	}
	for seat := range r.seats {
		select {
		case <-seat:
		default:
		}
		seat <- n // nobody else sends, and there is room
	}
}
