package dispatch

import (
	"errors"
	"fmt"
	"sync"

	"github.com/turumba/turumba/services/messaging"
	"github.com/turumba/turumba/services/messaging/postgres"
)

// maxSenders is how many senders keep their connections open.
const maxSenders = 2000

// senders keeps the open connections of channels, apart for each lane: a window of
// a campaign never stands before a single message. A channel that was changed
// gets a new sender; the old one lets its sends finish by itself.
type senders struct {
	cfg Config

	mu     sync.Mutex
	open   map[senderKey]*line
	valves map[string]*valve // by channel, while it has open connections
}

// senderKey is whose connections they are; the lane is empty where both share them.
type senderKey struct{ channel, lane string }

func newSenders(cfg Config) *senders {
	return &senders{cfg: cfg, open: map[senderKey]*line{}, valves: map[string]*valve{}}
}

// errNoAdapter: the channel is of a kind that this build does not send.
var errNoAdapter = errors.New("no adapter serves this channel")

// split is the lane's part of the channel's connections.
func split(c *messaging.Channel, lane string) (connections int32, key senderKey) {
	transactional, bulk, shared := c.SplitConnections()
	switch {
	case shared:
		return bulk, senderKey{c.ID, ""}
	case lane == postgres.LaneTransactional:
		return transactional, senderKey{c.ID, lane}
	}
	return bulk, senderKey{c.ID, lane}
}

// get returns the connections of the channel, as it is now, for a lane.
func (s *senders) get(c *messaging.Channel, lane string) (*line, error) {
	connections, key := split(c, lane)
	s.mu.Lock()
	defer s.mu.Unlock()
	old, ok := s.open[key]
	if ok && old.epoch == c.SendEpoch {
		return old, nil
	}
	adapter, known := s.cfg.Adapters.For(c.ChannelType, c.Provider)
	if !known {
		return nil, fmt.Errorf("%w: %s by %s", errNoAdapter, c.ChannelType, c.Provider)
	}
	part := *c
	part.Connections = connections
	settings, err := part.Settings(s.cfg.Vault)
	if err != nil {
		return nil, err
	}
	sender, err := adapter.Open(settings)
	if err != nil {
		return nil, err
	}
	s.shutOld(c)
	s.makeRoom()
	l := &line{
		sender: sender, epoch: c.SendEpoch, slots: make(chan struct{}, max(connections, 1)), valve: s.valve(c.ID),
		took: s.cfg.Metrics.durations.WithLabelValues(c.ChannelType, c.Provider),
	}
	l.window.Store(window)
	s.open[key] = l
	return l, nil
}

// valve is the channel's; a changed channel got a new one when its old connections were
// shut.
func (s *senders) valve(channelID string) *valve {
	v, ok := s.valves[channelID]
	if !ok {
		v = &valve{}
		s.valves[channelID] = v
	}
	return v
}

// shutOld closes what was opened for the channel as it was before.
func (s *senders) shutOld(c *messaging.Channel) {
	for _, lane := range []string{"", postgres.LaneTransactional, postgres.LaneBulk} {
		key := senderKey{c.ID, lane}
		if old, ok := s.open[key]; ok && old.epoch != c.SendEpoch {
			s.shut(old)
			delete(s.open, key)
			delete(s.valves, c.ID)
		}
	}
}

// makeRoom closes any one sender: it will be opened again when it is needed.
func (s *senders) makeRoom() {
	if len(s.open) < maxSenders {
		return
	}
	for key, o := range s.open {
		s.shut(o)
		delete(s.open, key)
		delete(s.valves, key.channel)
		return
	}
}

func (s *senders) shut(o *line) {
	if err := o.sender.Close(); err != nil {
		s.cfg.Logger.Warn("a channel's connections did not close", "err", err)
	}
}

func (s *senders) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, o := range s.open {
		s.shut(o)
		delete(s.open, key)
	}
}
