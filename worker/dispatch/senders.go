package dispatch

import (
	"errors"
	"fmt"
	"sync"

	"github.com/turumba/turumba/services/messaging"
	"github.com/turumba/turumba/services/messaging/channel"
)

// maxSenders is how many channels keep their connections open.
const maxSenders = 1000

// senders keeps the open connections of channels. A channel that was changed
// gets a new sender; the old one lets its sends finish by itself.
type senders struct {
	cfg Config

	mu   sync.Mutex
	open map[string]opened
}

// opened is a sender as the channel was at epoch.
type opened struct {
	sender channel.Sender
	epoch  int64
}

func newSenders(cfg Config) *senders { return &senders{cfg: cfg, open: map[string]opened{}} }

// errNoAdapter: the channel is of a kind that this build does not send.
var errNoAdapter = errors.New("no adapter serves this channel")

// get returns the sender of the channel as it is now.
func (s *senders) get(c *messaging.Channel) (channel.Sender, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old, ok := s.open[c.ID]
	if ok && old.epoch == c.SendEpoch {
		return old.sender, nil
	}
	adapter, known := s.cfg.Adapters.For(c.ChannelType, c.Provider)
	if !known {
		return nil, fmt.Errorf("%w: %s by %s", errNoAdapter, c.ChannelType, c.Provider)
	}
	settings, err := c.Settings(s.cfg.Vault)
	if err != nil {
		return nil, err
	}
	sender, err := adapter.Open(settings)
	if err != nil {
		return nil, err
	}
	if ok {
		s.shut(old)
	}
	s.makeRoom()
	s.open[c.ID] = opened{sender: sender, epoch: c.SendEpoch}
	return sender, nil
}

// makeRoom closes any one channel: it will be opened again when it is needed.
func (s *senders) makeRoom() {
	if len(s.open) < maxSenders {
		return
	}
	for id, o := range s.open {
		s.shut(o)
		delete(s.open, id)
		return
	}
}

func (s *senders) shut(o opened) {
	if err := o.sender.Close(); err != nil {
		s.cfg.Logger.Warn("a channel's connections did not close", "err", err)
	}
}

func (s *senders) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, o := range s.open {
		s.shut(o)
		delete(s.open, id)
	}
}
