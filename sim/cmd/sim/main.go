// Command sim is the mail provider simulator; see package sim.
package main

import (
	"context"
	"os"

	"github.com/turumba/turumba/sim/app"
)

func main() {
	os.Exit(app.Main(context.Background(), os.Environ(), os.Args[1:], os.Stdout, os.Stderr))
}
