// Command messaging is the messaging service.
package main

import (
	"context"
	"os"

	"github.com/turumba/turumba/kit/process"
	"github.com/turumba/turumba/services/messaging/app"
)

func main() {
	os.Exit(process.Main(context.Background(), os.Environ(), os.Args[1:], os.Stdout, os.Stderr, app.Main))
}
