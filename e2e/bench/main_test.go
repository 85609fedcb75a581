package bench_test

import (
	"context"
	"os"
	"testing"

	"github.com/turumba/turumba/cmd/turumba/single"
	simapp "github.com/turumba/turumba/sim/app"
)

// TestMain is also the processes that benchmarks start: this program again.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == single.SimulatorCommand {
		os.Exit(simapp.Main(context.Background(), os.Environ(), os.Args[2:], os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}
