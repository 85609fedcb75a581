// Command turumba is all of Turumba in one process: `up` serves it, `demo` sends
// a group message through it and accounts for every recipient.
package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/turumba/turumba/cmd/turumba/single"
	simapp "github.com/turumba/turumba/sim/app"
)

func main() {
	os.Exit(run(context.Background(), os.Environ(), os.Args[1:], os.Stdout, os.Stderr))
}

const usage = `turumba <command> [flags]

  up      serve everything in one process on localhost
  demo    the same with a demo tenant that sends a group message to the simulator
          [--contacts N] [--body-bytes B] [--connections C] [--exit] [--json]
          [--tour]: campaigns, a code in their midst, a batch, a dry run, a cancel and a resend,
          each held against the simulator's journal
  keys    rotate: seal every stored secret with a new master key, while turumba runs
          [--dry-run] [--json]
  health  ask a running turumba whether it is ready
  recount put the counters of group messages right from their rows, while everything runs
          [--account ID] [--dry-run] [--json]
  hold    keep every worker from handing messages to providers, for example before a restore
          [--reason TEXT] [--status] [--json]
  release let messages leave again; after a restore, give up what waited when the backup was made
          [--since TIME [--dry-run]] [--json]
  dlq     list, show or redrive what consumers gave up and what cannot be published
          list [--type T] | show --id ID | redrive --id ID | --type T | --all   [--json]

turumba <command> --help lists the flags and the environment.
`

func run(ctx context.Context, environ, args []string, stdout, stderr io.Writer) int {
	command := ""
	if len(args) > 0 {
		command, args = args[0], args[1:]
	}
	switch command {
	case "up":
		return up(ctx, environ, args, stdout, stderr)
	case "demo":
		return runDemo(ctx, environ, args, stdout, stderr)
	case "keys":
		return keys(ctx, environ, args, stdout, stderr)
	case "health":
		return up(ctx, environ, []string{"health"}, stdout, stderr)
	case "recount":
		return recount(ctx, environ, args, stdout, stderr)
	case "hold":
		return hold(ctx, environ, args, stdout, stderr)
	case "release":
		return release(ctx, environ, args, stdout, stderr)
	case "dlq":
		return dlq(ctx, environ, args, stdout, stderr)
	case single.SimulatorCommand:
		return simapp.Main(ctx, environ, args, stdout, stderr)
	case "help", "--help", "-h":
		fmt.Fprint(stdout, usage)
		return 0
	}
	fmt.Fprintf(stderr, "unknown command %q\n\n%s", command, usage)
	return 2
}
