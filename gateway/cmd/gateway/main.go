// Command gateway is the gateway.
package main

import (
	"context"
	"os"

	"github.com/turumba/turumba/gateway/app"
	"github.com/turumba/turumba/kit/process"
)

func main() {
	os.Exit(process.Main(context.Background(), os.Environ(), os.Args[1:], os.Stdout, os.Stderr, app.Main))
}
