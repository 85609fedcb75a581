package jobs_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// byHand are the loops that wait and are not of this package, by file and function, or
// by package, each with why. Whatever looks for work, or repeats a step, in the background belongs into
// jobs.Queue or jobs.Loop: they have the limits and report whether they go round.
var byHand = map[string]string{
	"cmd/turumba/hold.go giveUp":                                    "a command's wait for the workers",
	"kit/bounds/room.go shares.acquire":                             "a call's wait for room; it cuts readers who are too slow meanwhile",
	"kit/bus/inproc/consume.go Bus.next":                            "takes messages of a queue in memory for Consume, whose handlers have a limit each",
	"kit/bus/rabbitmq/consume.go consumer.loop":                     "subscribes again for ever; the broker's check of readiness says whether it is there",
	"kit/bus/rabbitmq/consume.go consumer.receive":                  "takes deliveries, and subscribes again where none come",
	"kit/bus/rabbitmq/deadletters.go DeadLetters.returned":          "a command's wait for dead letters to be back",
	"kit/bus/rabbitmq/link.go link.run":                             "dials again for ever; the broker's check of readiness says whether it is there",
	"kit/bus/rabbitmq/link.go link.wait":                            "a call's wait for the broker",
	"kit/bus/rabbitmq/publisher.go publisher.publish":               "a call's wait for confirms",
	"kit/grpcserver/inflight.go inFlight.settled":                   "a stop's wait for open calls",
	"kit/grpcserver/limits.go Server.watch":                         "ends one open stream when its session ends",
	"kit/outbox/notify.go Notifier.Run":                             "at most one statement in 10 ms however often it is asked; it reports its turns",
	"kit/outbox/notify.go Listener.Run":                             "hears hints alone: the poll of the relay, which reports its turns, does without it",
	"kit/pg/await.go AwaitSchema":                                   "a start's wait for another one that migrates",
	"kit/pg/embedded/embedded.go Server.adopt":                      "a start's wait for the own server",
	"kit/pg/embedded/embedded.go Server.run":                        "a start's wait for the own server",
	"kit/pg/embedded/embedded.go Server.await":                      "a start's wait for the own server",
	"kit/pg/embedded/folder.go Server.waitLock":                     "a start's wait for a folder that another process has",
	"kit/pg/migrate.go prepare":                                     "a start's wait for another one that migrates",
	"kit/pg/migrate.go migrationLock.SessionLock":                   "a start's wait for another one that migrates",
	"kit/streams/watch.go Watcher.next":                             "a call that is a stream",
	"kit/streams/watch.go Watcher.run":                              "looks for open streams, which end when it fails; each look has a limit",
	"services/account/importer/file.go file.batches":                "reads one file inside a job of the queue import",
	"services/account/mongodb/contact.go untilUnchanged":            "tries one change of a call again",
	"services/messaging/server/message_stream.go streamReader.read": "a call that is a stream",

	// Whole packages.
	"worker/dispatch":  "its lanes start runners beside each other, which a queue cannot; they report their turns themselves",
	"cmd/turumba/demo": "the demo waits for its own sends in the foreground",

	// The simulator.
	"cmd/turumba/single/simulator.go Simulator.Code": "the demo's wait for a mail",
	"cmd/turumba/single/simulator.go Simulator.Stop": "a stop's wait for the simulator",
}

// excepted reports whether a loop has its sentence: its function, or its package.
func excepted(at string, seen map[string]bool) bool {
	for _, key := range []string{at, path.Dir(strings.Fields(at)[0])} {
		if byHand[key] != "" {
			seen[key] = true
			return true
		}
	}
	return false
}

// waits reports whether a for statement waits in its rounds: it sleeps, makes timers,
// selects on the end of a context, or asks whether one has ended.
func waits(loop *ast.ForStmt) bool {
	found := false
	ast.Inspect(loop, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncLit: // another function's, unless it runs here, which Sleep in it shows
		case *ast.CallExpr:
			if s, ok := n.Fun.(*ast.SelectorExpr); ok {
				switch s.Sel.Name {
				case "Sleep", "NewTimer", "NewTicker", "WaitForNotification", "Pause":
					found = true
				}
			}
		case *ast.UnaryExpr:
			if call, ok := n.X.(*ast.CallExpr); ok && n.Op == token.ARROW {
				if s, ok := call.Fun.(*ast.SelectorExpr); ok && (s.Sel.Name == "Done" || s.Sel.Name == "C") {
					found = true
				}
			}
		}
		return !found
	})
	if found || loop.Cond == nil {
		return found
	}
	ast.Inspect(loop.Cond, func(n ast.Node) bool {
		if s, ok := n.(*ast.SelectorExpr); ok && s.Sel.Name == "Err" {
			found = true
		}
		return !found
	})
	return found
}

// receiver is the name of a method's type and a dot.
func receiver(fn *ast.FuncDecl) (name string) {
	if fn.Recv == nil {
		return ""
	}
	ast.Inspect(fn.Recv.List[0].Type, func(n ast.Node) bool {
		if id, ok := n.(*ast.Ident); ok && name == "" {
			name = id.Name + "."
		}
		return true
	})
	return name
}

// loopsIn finds the functions of a file with a loop that waits.
func loopsIn(t *testing.T, name string, src any) (functions []string) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), name, src, parser.SkipObjectResolution)
	require.NoError(t, err)
	for _, d := range file.Decls {
		fn, ok := d.(*ast.FuncDecl)
		if !ok || fn.Body == nil {
			continue
		}
		found := false
		ast.Inspect(fn.Body, func(n ast.Node) bool {
			if loop, ok := n.(*ast.ForStmt); ok && waits(loop) {
				found = true
			}
			return !found
		})
		if found {
			functions = append(functions, receiver(fn)+fn.Name.Name)
		}
	}
	return functions
}

// TestNoLoopByHand walks the source of everything that runs in production: a background
// loop outside this package fails, and so does an exception that is no longer needed.
func TestNoLoopByHand(t *testing.T) {
	t.Parallel()
	root := filepath.Join("..", "..")
	var files int
	seen := map[string]bool{}
	for _, dir := range []string{"kit", "services", "worker", "gateway", "cmd"} {
		require.NoError(t, filepath.WalkDir(filepath.Join(root, dir), func(name string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
				return err
			}
			rel, err := filepath.Rel(root, name)
			if err != nil {
				return err
			}
			rel = filepath.ToSlash(rel)
			if strings.HasPrefix(rel, "kit/jobs/") || strings.HasPrefix(rel, "kit/clock/") {
				return nil
			}
			files++
			src, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			for _, fn := range loopsIn(t, rel, src) {
				at := rel + " " + fn
				if !excepted(at, seen) {
					t.Errorf("%s: a background loop by hand: use jobs.Loop or jobs.Queue, or say in byHand why not", at)
				}
			}
			return nil
		}))
	}
	require.Greater(t, files, 300, "the source is not where it was")
	for at, why := range byHand {
		require.True(t, seen[at], "%s has no loop any more", at)
		require.Greater(t, len(why), 15, at)
	}
}

// TestLoopsByHandAreFound: what the walk must find, and what it must leave alone.
func TestLoopsByHandAreFound(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]bool{
		`for ctx.Err() == nil { work() }`:                                                   true,
		`for nil == ctx.Err() { work() }`:                                                   true,
		`for { if clock.Sleep(ctx, c, d) != nil { return } }`:                               true,
		`for clock.Sleep(ctx, c, d) == nil { work() }`:                                      true,
		`for { work(); t := c.NewTimer(d); <-t.C() }`:                                       true,
		`for { select { case <-ctx.Done(): return; case <-woken: } }`:                       true,
		`go func() { for { work(); _ = clock.Sleep(ctx, c, d) } }()`:                        true,
		`for { go work(); if _, err := c.WaitForNotification(ctx); err != nil { return } }`: true,
		`for i := 0; i < 10; i++ { work() }`:                                                false,
		`for { n, err := r.Read(b); if err != nil { return } }`:                             false,
		`for _, x := range list { work(x) }`:                                                false,
	} {
		require.Equal(t, want, len(loopsIn(t, "x.go", "package x\nfunc f() {"+body+"}")) > 0, body)
	}
}
