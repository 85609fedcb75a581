package dispatch

import "time"

// pace is how fast a channel's calls are answered, which decides where its chunks are
// worked on and how many messages are marked ahead (ADR 0045).
type pace uint8

const (
	// unproven: no call was answered in this process yet.
	unproven pace = iota
	// quick: a call takes less than quickCall.
	quick
	// steady: a call takes less than slowCall.
	steady
	// slow: calls take longer, or are open for longer.
	slow
)

const (
	// quickCall is how long a call may take for whole windows to be marked ahead.
	quickCall = 20 * time.Millisecond
	// slowCall is how long a call is waited for in the part of the runners that all share.
	slowCall = 500 * time.Millisecond
	// silentCall is how long a call is waited for before the channel is tried by another
	// message. What becomes of it is awaited as long as its adapter does.
	silentCall = 30 * time.Second
	// smoothing is the weight of the calls before in the mean of a call's time: one call
	// in a hundred that takes long does not make a channel slow.
	smoothing = 16
)

// timing is how long calls of a channel take.
type timing struct {
	mean     time.Duration // of a call's time, moving
	answered time.Time     // when the last call ended; zero for none
	// late is how many runners have a call open for longer than slowCall.
	late int
	// silent says that the last that is known of the channel is a call without an answer.
	silent bool
	shown  pace
}

// add takes in a call that ended.
func (t *timing) add(took time.Duration, now time.Time) {
	if t.answered.IsZero() {
		t.mean = took
	} else {
		t.mean += (took - t.mean) / smoothing
	}
	t.answered, t.silent = now, false
}

func (t *timing) pace() pace {
	switch {
	case t.silent || t.late > 0 || t.mean > slowCall:
		return slow
	case t.answered.IsZero():
		return unproven
	case t.mean < quickCall:
		return quick
	}
	return steady
}

// settle tells of a change; the valve is locked.
func (v *valve) settle() {
	if p := v.timing.pace(); p != v.shown {
		v.shown = p
		if v.changed != nil {
			v.changed(v, p)
		}
	}
}

func (v *valve) pace() pace {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.shown
}

// known is the pace with the mean time of a call.
func (v *valve) known() (p pace, latency time.Duration) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.shown, v.mean
}

// moving reports whether the channel answered lately, as its calls go: who waits for one
// of its connections will have it.
func (v *valve) moving(now time.Time) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return now.Sub(v.answered) < max(slowCall, 2*v.mean)
}

// belate counts runners (n is 1 or -1) with a call that is open for long.
func (v *valve) belate(n int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.late += n
	v.settle()
}

// silence says that a call which began then has no answer, and reports whether the
// channel gave none to any other call since: then it does not work.
func (v *valve) silence(began time.Time) (broken bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.answered.After(began) {
		return false
	}
	v.silent = true
	v.settle()
	return true
}

// rest lets this process call nobody for a moment; the database knows the rest.
func (v *valve) rest(now time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.close(now.Add(tripPause), codeCircuitOpen)
}
