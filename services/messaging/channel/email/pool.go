package email

import (
	"context"

	"github.com/turumba/turumba/services/messaging/channel"
)

// take returns the connection used last, or a new one.
func (s *sender) take(ctx context.Context) (*wire, *channel.Result) {
	if ctx.Err() != nil {
		res := fail(channel.ClassTransient, codeCancelled)
		return nil, &res
	}
	now := s.cfg.Clock.Now()
	s.mu.Lock()
	var expired []*wire
	for len(s.idle) > 0 {
		last := len(s.idle) - 1
		w := s.idle[last]
		s.idle[last] = nil
		s.idle = s.idle[:last]
		if now.Sub(w.idleSince) < s.cfg.Timeouts.Idle {
			s.mu.Unlock()
			return w, nil
		}
		expired = append(expired, w)
	}
	s.mu.Unlock()
	quitAll(expired)
	return s.fresh(ctx)
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
	if failed != nil && failed.Class == channel.ClassConfig {
		s.mu.Lock()
		s.refusal, s.refusedUntil = *failed, s.cfg.Clock.Now().Add(s.cfg.Timeouts.Refused)
		s.mu.Unlock()
	}
	return w, failed
}

// release puts a connection back, or closes it.
func (s *sender) release(w *wire, next fate) {
	switch {
	case next != keep:
		_ = w.conn.Close()
	case s.set.MaxPerConnection > 0 && w.sent >= s.set.MaxPerConnection || !s.park(w):
		w.quit()
	}
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
	s.idle = nil
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
