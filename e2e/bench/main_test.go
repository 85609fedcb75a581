package bench_test

import (
	"context"
	"fmt"
	"os"
	"testing"

	"github.com/turumba/turumba/cmd/turumba/single"
	"github.com/turumba/turumba/kit/process"
	simapp "github.com/turumba/turumba/sim/app"
)

// TestMain is also the processes that benchmarks start: this program again. All of them
// collect garbage at the pace of our binaries.
func TestMain(m *testing.M) {
	process.TuneGC(process.GCBusy)
	if len(os.Args) < 2 {
		os.Exit(m.Run())
	}
	var err error
	switch os.Args[1] {
	case single.SimulatorCommand:
		os.Exit(simapp.Main(context.Background(), os.Environ(), os.Args[2:], os.Stdout, os.Stderr))
	case workerCommand:
		err = runWorker(os.Args[2])
	case sinkCommand:
		err = runSink()
	default:
		os.Exit(m.Run())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
