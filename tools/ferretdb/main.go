// Command ferretdb is a MongoDB wire server for tests: FerretDB v1 on SQLite. It
// prints its URL and ends when its standard input does, so that it never outlives
// the test that started it. It is a module of its own because FerretDB needs other
// versions of what we use ourselves.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/FerretDB/FerretDB/ferretdb"
)

func main() {
	dir := flag.String("dir", "", "folder for the data, which must exist")
	remove := flag.Bool("remove", false, "remove the folder in the end")
	flag.Parse()
	err := run(*dir)
	if *remove {
		_ = os.RemoveAll(*dir) // what is left only costs space
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "ferretdb:", err)
		os.Exit(1)
	}
}

func run(dir string) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	server, err := ferretdb.New(&ferretdb.Config{
		Listener:  ferretdb.ListenerConfig{TCP: "127.0.0.1:0"},
		Logger:    slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})),
		Handler:   "sqlite",
		SQLiteURL: "file:" + dir + "/",
	})
	if err != nil {
		return err
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	ended := make(chan error, 1)
	go func() { ended <- server.Run(ctx) }()
	fmt.Println(server.MongoDBURI())
	return <-ended
}
