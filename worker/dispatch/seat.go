package dispatch

import (
	"sync"

	"github.com/turumba/turumba/services/messaging/postgres"
)

// A lane's runners are in one of two parts, or have left both (ADR 0045). All begin in the
// first, which everybody shares: who has a call open for longer than slowCall moves to the
// second, so that what is quick never waits for what is not. Who has one open for longer
// than silentCall only waits for its end, and has no place.
const (
	// freshPart of the runners may be one account's with channels that are not known yet:
	// one in so many. Each of them may turn out to be silent.
	freshPart = 16
	// wholePart is how much of the runners may be one account's: three in so many.
	wholePart = 4
	// spareSlow is how many chunks of a slow channel are in work beside those that have a
	// connection, so that its messages take turns.
	spareSlow = 3
)

// seats are the places of a lane's runners.
type seats struct {
	main chan struct{} // a place in the first part each
	slow int           // how many runners the second part has room for

	mu       sync.Mutex
	channels map[string]*channelSeats
	accounts map[string]*accountSeats
	inSlow   int
	slowAcc  int // accounts with runners in the second part
}

// channelSeats are a channel's chunks in work, without those that only wait for calls that
// are silent.
type channelSeats struct {
	chunks      int
	connections int // of the channel; 0 while they are not known
	own         int // of those, the lane's own
}

type accountSeats struct{ main, fresh, slow int }

// newSeats are the places of both parts.
func newSeats(runners, slow int) *seats {
	return &seats{main: make(chan struct{}, runners), slow: slow, channels: map[string]*channelSeats{}, accounts: map[string]*accountSeats{}}
}

// place is where a runner is.
type place uint8

const (
	inMain place = iota
	inSlow
	nowhere
)

// seat is a runner's place. It is of one goroutine.
type seat struct {
	of                   *seats
	channelID, accountID string
	where                place
	fresh                bool
}

// take gives a chunk the place that was taken from s.main.
func (s *seats) take(c *postgres.Chunk, p pace) *seat {
	t := &seat{of: s, channelID: c.ChannelID, accountID: c.AccountID, fresh: p == unproven}
	s.mu.Lock()
	defer s.mu.Unlock()
	ch := s.channels[c.ChannelID]
	if ch == nil {
		ch = &channelSeats{}
		s.channels[c.ChannelID] = ch
	}
	ch.chunks++
	a := s.account(c.AccountID)
	a.main++
	if t.fresh {
		a.fresh++
	}
	return t
}

func (s *seats) account(id string) *accountSeats {
	a := s.accounts[id]
	if a == nil {
		a = &accountSeats{}
		s.accounts[id] = a
	}
	return a
}

// equip says how many connections the channel has, and how many of them are the lane's own,
// and reports whether that was not known.
func (t *seat) equip(connections, own int) (news bool) {
	t.of.mu.Lock()
	defer t.of.mu.Unlock()
	ch := t.of.channels[t.channelID]
	if ch == nil {
		return false
	}
	news, ch.connections, ch.own = ch.connections == 0, connections, own
	return news
}

// move takes the runner to another place; to the one where it is does nothing.
func (t *seat) move(to place) {
	if t.where == to {
		return
	}
	s := t.of
	s.mu.Lock()
	a := s.account(t.accountID)
	switch t.where {
	case inMain:
		a.main--
		if t.fresh {
			a.fresh, t.fresh = a.fresh-1, false
		}
	case inSlow:
		s.inSlow--
		if a.slow--; a.slow == 0 {
			s.slowAcc--
		}
	case nowhere:
	}
	switch to {
	case inSlow:
		s.inSlow++
		if a.slow++; a.slow == 1 {
			s.slowAcc++
		}
	case nowhere:
		if ch := s.channels[t.channelID]; ch.chunks == 1 {
			delete(s.channels, t.channelID)
		} else {
			ch.chunks--
		}
	case inMain:
	}
	if *a == (accountSeats{}) {
		delete(s.accounts, t.accountID)
	}
	s.mu.Unlock()
	if t.where == inMain {
		<-s.main
	}
	t.where = to
}

// full reports whether a channel of this pace has all the chunks in work that it may have.
func (s *seats) full(channelID, accountID string, limit chunkLimit, p pace, moving bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p == slow && !s.roomForSlow(accountID) {
		return true
	}
	ch := s.channels[channelID]
	return ch != nil && ch.chunks >= ch.most(limit, p, moving)
}

// chunkLimit is how many chunks of one channel a lane has in work: while it is quick, and
// at most where it has more connections than that.
type chunkLimit struct{ quick, most int }

// most is how many chunks of the channel may be in work: no more than have a connection of
// the lane's own, unless its calls go fast, or at least go on. Then there are some more, so that each
// connection has one while others are stored and claimed.
func (c *channelSeats) most(limit chunkLimit, p pace, moving bool) int {
	switch {
	case p == unproven:
		return 1
	case p == quick:
		return limit.quick
	case p == steady:
		return min(limit.most, max(limit.quick, c.connections+spareSlow))
	case c.connections == 0:
		return 1
	case moving:
		return min(limit.most, c.connections+spareSlow)
	}
	return min(limit.most, c.own)
}

// roomForSlow reports whether an account may have one more chunk of a slow channel in
// work: it gets one in any case, and else its share of them.
func (s *seats) roomForSlow(accountID string) bool {
	a := s.accounts[accountID]
	switch {
	case a == nil || a.slow == 0:
		return true
	case s.inSlow >= s.slow:
		return false
	}
	return a.slow < max(s.slow/max(s.slowAcc, 2), 1)
}

// skip is what must not be claimed now. known tells the pace of a channel, slowOnes are the
// slow channels of the process with their accounts, and proven the known channels of an
// account.
func (s *seats) skip(limit chunkLimit, known func(channelID string) (p pace, moving bool), slowOnes map[string]string, proven func(accountID string) []string) postgres.Skip {
	var skip postgres.Skip
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, ch := range s.channels {
		if p, moving := known(id); ch.chunks >= ch.most(limit, p, moving) {
			skip.Channels = append(skip.Channels, id)
		}
	}
	for id, account := range slowOnes {
		if !s.roomForSlow(account) {
			skip.Channels = append(skip.Channels, id)
		}
	}
	runners := cap(s.main)
	for id, a := range s.accounts {
		switch {
		case a.main >= max(runners-runners/wholePart, 1):
			skip.Accounts = append(skip.Accounts, id)
		case a.fresh >= max(runners/freshPart, 1):
			skip.Fresh = append(skip.Fresh, id)
			skip.Known = append(skip.Known, proven(id)...)
		}
	}
	return skip
}
