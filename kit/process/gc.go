package process

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"

	"github.com/turumba/turumba/kit/blocks"
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
	// gcLeast is for a process in which so much lives that gcGarbage is less.
	gcLeast = 50
	// gcGarbage is how many bytes a process leaves uncollected at most: some of the largest
	// requests at once let 200 MiB live for a moment.
	gcGarbage = 256 << 20
)

// collector sets the pace of garbage collection by what lives.
var collector struct {
	sync.Mutex
	most, now int // percent
}

// TuneGC sets the pace of garbage collection, unless GOGC says another. Main sets GCBusy for
// every binary.
func TuneGC(percent int) {
	if os.Getenv("GOGC") != "" {
		return
	}
	collector.Lock()
	defer collector.Unlock()
	first := collector.most == 0
	collector.most, collector.now = percent, percent
	debug.SetGCPercent(percent)
	if first {
		blocks.AfterCollection(pace)
	}
}

// pace sets the pace anew after each collection.
func pace() {
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(live)
	collector.Lock()
	defer collector.Unlock()
	next := percentOf(live[0].Value.Uint64(), collector.most)
	if differ := next - collector.now; 10*max(differ, -differ) > collector.now { // setting it stops all for a moment
		collector.now = next
		debug.SetGCPercent(next)
	}
	blocks.AfterCollection(pace)
}

// percentOf is how much the heap may grow of so many bytes that live.
func percentOf(live uint64, most int) int {
	return max(min(most, int(gcGarbage*100/max(live, 1))), min(most, gcLeast))
}

// settle collects what a start leaves, migrations and tables of words, once all is wired:
// the heap grows to several times what lives, and a start has several times as much.
func settle() { runtime.GC() }
