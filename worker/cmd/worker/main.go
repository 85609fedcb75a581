// Command worker is the worker.
package main

import (
	"context"
	"os"

	"github.com/turumba/turumba/kit/process"
	"github.com/turumba/turumba/worker/app"
)

func main() {
	os.Exit(process.Main(context.Background(), os.Environ(), os.Args[1:], os.Stdout, os.Stderr, app.Main))
}
