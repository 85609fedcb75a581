package process

import (
	"os"
	"runtime"
	"runtime/debug"
)

// gcPercent is how much the heap grows between two collections. What lives in one of our
// processes is 10 to 30 MiB, which Go's default of 100 collects a dozen times a second
// under load: a sixth of the CPU of a group send. 400 costs some ten MiB.
const gcPercent = 400

// TuneGC sets the pace of garbage collection, unless GOGC says another. Main does it for
// every binary.
func TuneGC() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
}

// settle collects what a start leaves, migrations and tables of words, once all is wired:
// the heap grows to five times what lives, and a start has several times as much.
func settle() { runtime.GC() }
