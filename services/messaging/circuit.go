package messaging

import "time"

// How long a channel rests before one message tries it again, doubled each time that it
// fails: a provider that is away comes back soon, credentials that are wrong or an empty
// balance take somebody to mend, and a login that is tried often locks the account.
const (
	tripRest, maxTripRest   = time.Second, time.Minute
	errorRest, maxErrorRest = time.Minute, 15 * time.Minute
)

// MaySend reports whether messages may leave now.
func (c *Channel) MaySend(now time.Time) bool {
	return c.open(now) && c.Status != ChannelError && c.CircuitUntil == nil
}

// MayProbe reports whether one message may try a channel that did not work.
func (c *Channel) MayProbe(now time.Time) bool {
	return c.open(now) && c.CircuitUntil != nil && !c.CircuitUntil.After(now)
}

func (c *Channel) open(now time.Time) bool {
	return c.IsEnabled && (c.PausedUntil == nil || !c.PausedUntil.After(now))
}

// Broken reports whether the channel is enabled and does not work: messages that named
// only its type go elsewhere. One whose rest is over may work again.
func (c *Channel) Broken(now time.Time) bool {
	return c.IsEnabled && (c.Status == ChannelError && c.CircuitUntil == nil || c.CircuitUntil != nil && c.CircuitUntil.After(now))
}

// Break lets the channel rest, because its provider does not work, or refuses it
// (refused), and says why. What a provider said that refused it stays, whatever tries meet
// after it: that is what somebody has to mend.
func (c *Channel) Break(now time.Time, refused bool, why string) {
	rest, most := tripRest, maxTripRest
	if refused || c.Status != ChannelError {
		c.ErrorMessage = why
	}
	if refused {
		c.Status = ChannelError
		rest, most = errorRest, maxErrorRest
	}
	until := now.Add(min(rest<<min(c.CircuitTrips, 10), most))
	c.CircuitUntil = &until
	c.CircuitTrips++
}

// Mend forgets what kept the channel from working: somebody mended it, or a message
// left.
func (c *Channel) Mend() {
	if c.Status == ChannelError {
		c.Status = ChannelDisconnected
	}
	c.ErrorMessage, c.PausedUntil, c.CircuitUntil, c.CircuitTrips, c.Throttle = "", nil, nil, 0, nil
}

// HeldFor is how long messages wait that found the channel as it is; 0 if one may leave, or
// try it. Whatever mends the channel before lets them go.
func (c *Channel) HeldFor(now time.Time) time.Duration {
	switch at := c.retryAt(); {
	case c.MaySend(now), c.MayProbe(now):
		return 0
	case at.IsZero():
		return MendedCheck
	default:
		return min(max(at.Sub(now), 0)+heldLeast, heldMost)
	}
}

const (
	// heldMost is the longest that messages wait for a channel whose time is known.
	heldMost = 10 * time.Second
	// heldLeast keeps them from coming back before the time that they wait for.
	heldLeast = 10 * time.Millisecond
)

// retryAt is when the channel is worth another look; zero if only a change of it helps.
func (c *Channel) retryAt() (at time.Time) {
	for _, t := range []*time.Time{c.PausedUntil, c.CircuitUntil} {
		if c.IsEnabled && t != nil && t.After(at) {
			at = *t
		}
	}
	return at
}

// Throttle is the rate of a channel whose provider asked to slow down and did not say
// for how long.
type Throttle struct {
	// Rate is messages per minute at At, Ceiling what there was before.
	Rate    int32     `json:"rate"`
	Ceiling int32     `json:"ceiling"`
	At      time.Time `json:"at"`
}

// recovery is the part of the ceiling that comes back each second.
const recovery = 0.01

// Slow halves the channel's rate; observed is how many messages per minute it really
// sent, for one without a limit.
func (c *Channel) Slow(now time.Time, observed int32) {
	rate := observed
	if limit := c.Rate(now); limit != nil {
		rate = *limit
	}
	ceiling := rate
	if c.Throttle != nil {
		ceiling = max(ceiling, c.Throttle.Ceiling)
	}
	c.Throttle = &Throttle{Rate: max(rate/2, 1), Ceiling: ceiling, At: now}
}

// Rate is how many messages may leave per minute; nil for no limit of ours.
func (c *Channel) Rate(now time.Time) *int32 {
	t := c.Throttle
	if t == nil {
		return c.RateLimit
	}
	rate := t.Rate + int32(float64(t.Ceiling)*recovery*max(now.Sub(t.At).Seconds(), 0))
	switch {
	case rate >= t.Ceiling:
		return c.RateLimit
	case c.RateLimit != nil && *c.RateLimit < rate:
		return c.RateLimit
	}
	return &rate
}
