package process

import (
	"os"
	"runtime"
	"runtime/debug"
)

// How much the heap grows between two collections, in percent of what lives.
const (
	// GCBusy is for what sends. What lives in one of our processes is 10 to 30 MiB, which
	// Go's default of 100 collects a dozen times a second under load: a sixth of the CPU of
	// a group send. 400 costs some ten MiB.
	GCBusy = 400
	// GCPublic is for what strangers reach first: whatever they let live for a moment, the
	// heap grows by three times as much, and not by five.
	GCPublic = 200
)

// gcSoon is the memory, in bytes, beyond which a process collects more often than that: it
// then grows with what lives alone. None of ours comes near it in its work, but one with some
// of the largest requests at once would have several times as much in what they leave.
const gcSoon = 512 << 20

// TuneGC sets the pace of garbage collection, unless GOGC and GOMEMLIMIT say another. Main
// sets GCBusy for every binary.
func TuneGC(percent int) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(percent)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(gcSoon)
	}
}

// settle collects what a start leaves, migrations and tables of words, once all is wired:
// the heap grows to several times what lives, and a start has several times as much.
func settle() { runtime.GC() }
