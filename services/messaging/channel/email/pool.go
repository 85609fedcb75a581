package email

import (
	"context"
	"time"

	"github.com/turumba/turumba/services/messaging/channel"
)

// crowded is how long no connection is opened beside others after a server said that it takes
// no more of them.
const crowded = time.Minute

// take returns the connection used last, or a new one. Where the server takes no more, it
// waits for one of those that are open.
func (s *sender) take(ctx context.Context) (*wire, *channel.Result) {
	for {
		if ctx.Err() != nil {
			res := fail(channel.ClassTransient, codeCancelled)
			return nil, &res
		}
		w, alone := s.idleOne()
		if w != nil {
			return w, nil
		}
		if !alone && s.isCrowded() {
			s.await(ctx)
			continue
		}
		w, failed := s.fresh(ctx)
		if failed == nil || !s.crowds(failed) {
			return w, failed
		}
	}
}

// idleOne is the connection used last, if there is an idle one; alone is whether there is none
// at all.
func (s *sender) idleOne() (w *wire, alone bool) {
	now := s.cfg.Clock.Now()
	s.mu.Lock()
	var expired []*wire
	for len(s.idle) > 0 && w == nil {
		last := len(s.idle) - 1
		w = s.idle[last]
		s.idle[last] = nil
		s.idle = s.idle[:last]
		if now.Sub(w.idleSince) >= s.cfg.Timeouts.Idle {
			expired, w = append(expired, w), nil
		}
	}
	s.open -= len(expired)
	alone = s.open == 0
	s.mu.Unlock()
	quitAll(expired)
	return w, alone
}

func (s *sender) isCrowded() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cfg.Clock.Now().Before(s.crowdedUntil)
}

// crowds reports whether a connection was refused because there are others: the server takes
// no more of them (421 before MAIL), and those that are open go on.
func (s *sender) crowds(failed *channel.Result) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if failed.Code != "421" || failed.Class != channel.ClassRateLimited || s.open == 0 {
		return false
	}
	s.crowdedUntil = s.cfg.Clock.Now().Add(crowded)
	return true
}

// await waits until a connection was given back or closed, or ctx ends.
func (s *sender) await(ctx context.Context) {
	select {
	case <-s.freed:
	case <-ctx.Done():
	}
}

// free tells one who waits that a connection was given back or closed.
func (s *sender) free() {
	select {
	case s.freed <- struct{}{}:
	default:
	}
}

// fresh opens a connection, unless a refused login is so recent that another try
// would only count against the mail account.
func (s *sender) fresh(ctx context.Context) (*wire, *channel.Result) {
	s.mu.Lock()
	closed, refusal, until := s.closed, s.refusal, s.refusedUntil
	s.mu.Unlock()
	if closed {
		res := fail(channel.ClassTransient, codeClosed)
		return nil, &res
	}
	if s.cfg.Clock.Now().Before(until) {
		return nil, &refusal
	}
	w, failed := s.connect(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case failed == nil:
		s.open++
	case failed.Class == channel.ClassConfig:
		s.refusal, s.refusedUntil = *failed, s.cfg.Clock.Now().Add(s.cfg.Timeouts.Refused)
	}
	return w, failed
}

// release puts a connection back, or closes it.
func (s *sender) release(w *wire, next fate) {
	defer s.free()
	switch {
	case next != keep:
		_ = w.conn.Close()
	case s.set.MaxPerConnection > 0 && w.sent >= s.set.MaxPerConnection || !s.park(w):
		w.quit()
	default:
		return
	}
	s.mu.Lock()
	s.open--
	s.mu.Unlock()
}

// park makes the connection idle and reports false when the sender is closed.
func (s *sender) park(w *wire) bool {
	w.idleSince = s.cfg.Clock.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.idle = append(s.idle, w)
	if !s.sweeps {
		s.sweeps = true
		s.background.Go(s.sweep)
	}
	return true
}

// sweep closes connections that stay idle, and ends when there are none.
func (s *sender) sweep() {
	for s.pause() {
		expired, more := s.expired()
		quitAll(expired)
		if !more {
			return
		}
	}
}

// pause waits for the idle time and reports false when the sender was closed.
func (s *sender) pause() bool {
	timer := s.cfg.Clock.NewTimer(s.cfg.Timeouts.Idle)
	defer timer.Stop()
	select {
	case <-timer.C():
		return true
	case <-s.shutdown:
		return false
	}
}

// expired takes out what has been idle for too long; the oldest come first.
func (s *sender) expired() (old []*wire, more bool) {
	now := s.cfg.Clock.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for n < len(s.idle) && now.Sub(s.idle[n].idleSince) >= s.cfg.Timeouts.Idle {
		n++
	}
	old = append(old, s.idle[:n]...)
	s.open -= n
	s.idle = append(s.idle[:0], s.idle[n:]...)
	s.sweeps = len(s.idle) > 0
	return old, s.sweeps
}

// Close ends the idle connections and waits for the sweeper. Running sends
// finish and close their own.
func (s *sender) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	idle := s.idle
	s.idle, s.open = nil, s.open-len(s.idle)
	close(s.shutdown)
	s.mu.Unlock()
	quitAll(idle)
	s.background.Wait()
	return nil
}

func quitAll(wires []*wire) {
	for _, w := range wires {
		w.quit()
	}
}
