package dispatch

import (
	"errors"
	"fmt"
	"sync"

	"github.com/turumba/turumba/services/messaging"
	"github.com/turumba/turumba/services/messaging/channel"
)

// maxSenders is how many senders keep their connections open.
const maxSenders = 2000

// senders keeps the open connections of channels, which the lanes of each share. A channel
// that was changed gets a new sender; the old one lets its sends finish by itself.
type senders struct {
	cfg Config
	// wake lets the lanes look for work: a channel may have more chunks in work than before.
	wake func()

	mu     sync.Mutex
	open   map[string]*pool  // by channel
	valves map[string]*valve // by channel, while it has open connections

	slowMu sync.Mutex
	slow   map[*valve]struct{}
}

func newSenders(cfg Config, wake func()) *senders {
	return &senders{cfg: cfg, wake: wake, open: map[string]*pool{}, valves: map[string]*valve{}, slow: map[*valve]struct{}{}}
}

// spare is how many calls a sender takes beyond the channel's connections, which the line
// sees to: those that try the channel while others have no answer yet.
const spare = 32

// errNoAdapter: the channel is of a kind that this build does not send.
var errNoAdapter = errors.New("no adapter serves this channel")

// get returns a lane's line to the channel as it is now.
func (s *senders) get(c *messaging.Channel, lane string) (*line, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, ok := s.open[c.ID]
	if !ok || p.lines[singles].epoch != c.SendEpoch {
		var err error
		if p, err = s.connect(c); err != nil {
			return nil, err
		}
	}
	return p.lines[laneOf(lane)], nil
}

// connect opens the channel as it is now, in the place of what it was before.
func (s *senders) connect(c *messaging.Channel) (*pool, error) {
	adapter, known := s.cfg.Adapters.For(c.ChannelType, c.Provider)
	if !known {
		return nil, fmt.Errorf("%w: %s by %s", errNoAdapter, c.ChannelType, c.Provider)
	}
	wider := *c
	wider.Connections = max(c.Connections, min(c.Connections+spare, channel.MaxConnections))
	settings, err := wider.Settings(s.cfg.Vault)
	if err != nil {
		return nil, err
	}
	sender, err := adapter.Open(settings)
	if err != nil {
		return nil, err
	}
	s.shut(c.ID)
	s.makeRoom()
	p := newPool(sender, c.SendEpoch, int(c.Connections), s.valve(c), s.cfg.Metrics.durations.WithLabelValues(c.ChannelType, c.Provider))
	s.open[c.ID] = p
	return p, nil
}

// valve is the channel's; a changed channel got a new one when its old connections were
// shut.
func (s *senders) valve(c *messaging.Channel) *valve {
	v, ok := s.valves[c.ID]
	if !ok {
		v = &valve{channelID: c.ID, accountID: c.AccountID, changed: s.changed}
		s.valves[c.ID] = v
	}
	return v
}

// changed keeps the list of slow channels.
func (s *senders) changed(v *valve, p pace) {
	s.slowMu.Lock()
	defer s.slowMu.Unlock()
	if p == slow {
		s.slow[v] = struct{}{}
	} else {
		delete(s.slow, v)
		s.wake()
	}
}

// forget ends what is known of a channel.
func (s *senders) forget(channelID string) {
	v := s.valves[channelID]
	if v == nil {
		return
	}
	delete(s.valves, channelID)
	v.mu.Lock()
	v.changed = nil
	v.mu.Unlock()
	s.slowMu.Lock()
	defer s.slowMu.Unlock()
	delete(s.slow, v)
}

// slowOnes are the channels that are slow now, with their accounts.
func (s *senders) slowOnes() map[string]string {
	s.slowMu.Lock()
	defer s.slowMu.Unlock()
	if len(s.slow) == 0 {
		return nil
	}
	out := make(map[string]string, len(s.slow))
	for v := range s.slow {
		out[v.channelID] = v.accountID
	}
	return out
}

// known is the pace of a channel, and whether it is moving.
func (s *senders) known(channelID string) (p pace, moving bool) {
	s.mu.Lock()
	v := s.valves[channelID]
	s.mu.Unlock()
	if v == nil {
		return unproven, false
	}
	p = v.pace()
	return p, p == slow && v.moving(s.cfg.Clock.Now())
}

// proven are the channels of an account that have answered.
func (s *senders) proven(accountID string) (ids []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, v := range s.valves {
		if v.accountID == accountID && v.pace() != unproven {
			ids = append(ids, id)
		}
	}
	return ids
}

// resting reports whether messages of the channel should not wait in memory: it is called
// by nobody now, or its calls have no answer.
func (s *senders) resting(channelID string) bool {
	s.mu.Lock()
	v := s.valves[channelID]
	s.mu.Unlock()
	if v == nil {
		return false
	}
	now := s.cfg.Clock.Now()
	wait, _ := v.held(now)
	return wait > 0 || v.pace() == slow && !v.moving(now)
}

// makeRoom closes any one sender: it will be opened again when it is needed.
func (s *senders) makeRoom() {
	if len(s.open) < maxSenders {
		return
	}
	for id := range s.open {
		s.shut(id)
		return
	}
}

// shut closes what is open of a channel, if anything is.
func (s *senders) shut(channelID string) {
	p, ok := s.open[channelID]
	if !ok {
		return
	}
	if err := p.lines[singles].sender.Close(); err != nil {
		s.cfg.Logger.Warn("a channel's connections did not close", "err", err)
	}
	delete(s.open, channelID)
	s.forget(channelID)
}

// renew has the channel opened anew with the next chunk.
func (s *senders) renew(channelID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.shut(channelID)
}

func (s *senders) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id := range s.open {
		s.shut(id)
	}
}
