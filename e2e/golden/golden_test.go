package golden_test

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/turumba/turumba/cmd/turumba/single"
	"github.com/turumba/turumba/e2e/golden"
	"github.com/turumba/turumba/e2e/wire"
	"github.com/turumba/turumba/e2e/world"
	simapp "github.com/turumba/turumba/sim/app"
)

// TestMain is also the simulator, which the mesh starts as a process of its own.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == single.SimulatorCommand {
		os.Exit(simapp.Main(context.Background(), os.Environ(), os.Args[2:], os.Stdout, os.Stderr))
	}
	goleak.VerifyTestMain(m)
}

func TestGolden(t *testing.T) {
	t.Parallel()
	runCases(t, world.New(t), func(string) bool { return true })
}

// TestGoldenOnMongoDB runs the cases of contacts and groups where those are documents.
func TestGoldenOnMongoDB(t *testing.T) {
	t.Parallel()
	runCases(t, world.New(t, world.Documents(t)), func(name string) bool {
		return strings.HasPrefix(name, "contact") || strings.HasPrefix(name, "recipient")
	})
}

// runCases runs the files that are wanted over both wires.
func runCases(t *testing.T, w *world.World, wanted func(name string) bool) {
	t.Helper()
	files, err := golden.Load(os.DirFS("."), "testdata")
	require.NoError(t, err)
	document, err := wire.ReadDocument()
	require.NoError(t, err)
	names := slices.Sorted(maps.Keys(files))
	ran := 0
	for i, name := range names {
		file, short := files[name], strings.TrimSuffix(path.Base(name), ".yaml")
		if !wanted(short) {
			continue
		}
		ran++
		t.Run(short, func(t *testing.T) {
			t.Parallel()
			for _, over := range wire.All() {
				run := golden.NewRun(w, document, over, fmt.Sprintf("f%d", i))
				w.ForgetAttempts(t)
				for _, c := range file.Cases {
					if run.Skips(file.RPC, c) {
						continue
					}
					if err := run.Do(t.Context(), file.RPC, c); err != nil {
						t.Errorf("%s over %s: %v", c.Name, over, err)
					}
				}
			}
		})
	}
	require.Positive(t, ran)
}

// TestEveryRPCHasCases walks the contract: each RPC has one file, with a good
// call and a bad one.
func TestEveryRPCHasCases(t *testing.T) {
	t.Parallel()
	files, err := golden.Load(os.DirFS("."), "testdata")
	require.NoError(t, err)
	byRPC := map[string]golden.File{}
	for name, f := range files {
		require.NotContains(t, byRPC, f.RPC, name)
		byRPC[f.RPC] = f
	}
	for _, md := range wire.Methods() {
		rpc := wire.Name(md)
		f, ok := byRPC[rpc]
		if !ok {
			t.Errorf("%s has no cases", rpc)
			continue
		}
		delete(byRPC, rpc)
		good, bad := 0, 0
		for _, c := range f.Cases {
			if c.Want.Reason == "" {
				good++
			} else {
				bad++
			}
		}
		auth := wire.AuthOf(md)
		opts, _ := md.Options().(*descriptorpb.MethodOptions)
		harmless := auth.GetPublic() && opts.GetIdempotencyLevel() == descriptorpb.MethodOptions_NO_SIDE_EFFECTS
		require.True(t, good > 0 || auth.GetInternal() != nil || opts.GetDeprecated(), "%s has no good case", rpc)
		require.True(t, bad > 0 || harmless, "%s has no bad case", rpc)
	}
	require.Empty(t, byRPC, "cases of RPCs that do not exist")
}
