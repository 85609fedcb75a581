// Package mongotest gives each test an empty database on a MongoDB wire server:
// FerretDB, which the test process starts for itself, and besides it MONGODB_URL when
// that is set. Without FerretDB the test is skipped loudly, and fails where CI=true.
package mongotest

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// FerretDB is the name of the server that is always there.
const FerretDB = "ferretdb"

// Servers are the URLs of the servers to test with, by name.
func Servers(t testing.TB) map[string]string {
	t.Helper()
	all := map[string]string{FerretDB: ferret(t)}
	if u := os.Getenv("MONGODB_URL"); u != "" {
		all["mongodb"] = u
	}
	return all
}

// New is the URL of an empty database on the server; it is dropped when the test ends.
func New(t testing.TB, server string) string {
	t.Helper()
	u, err := url.Parse(server)
	if err != nil {
		t.Fatalf("mongotest: %v", err)
	}
	name := "test_" + strings.ReplaceAll(uuid.NewString(), "-", "")
	u.Path = "/" + name
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
		defer cancel()
		client, err := mongo.Connect(options.Client().ApplyURI(server))
		if err != nil {
			t.Errorf("mongotest: %v", err)
			return
		}
		if err := client.Database(name).Drop(ctx); err != nil {
			t.Errorf("mongotest: drop %s: %v", name, err)
		}
		_ = client.Disconnect(ctx) // the database is gone
	})
	return u.String()
}

var started struct {
	sync.Once
	url string
	err error
	// stdin is the server's; were it collected, the server would end.
	stdin io.WriteCloser
}

// ferret starts FerretDB on first use. It ends with this process, whose end of a pipe
// it watches.
func ferret(t testing.TB) string {
	t.Helper()
	started.Do(func() { started.url, started.err = start() })
	if started.err == nil {
		return started.url
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("no MongoDB wire server for the tests: %v", started.err)
	}
	t.Skipf("SKIP-MONGO: %v", started.err)
	return ""
}

func start() (string, error) {
	binary, err := find()
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp("", "turumba-ferretdb-")
	if err != nil {
		return "", err
	}
	// The server removes its folder when it ends.
	cmd := exec.CommandContext(context.Background(), binary, "-dir", dir, "-remove")
	cmd.Stderr = os.Stderr
	if started.stdin, err = cmd.StdinPipe(); err != nil {
		return "", err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", err
	}
	if err := cmd.Start(); err != nil {
		return "", err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("%s did not start: %w", binary, err)
	}
	return strings.TrimSpace(line), nil
}

// find looks for FerretDB where `make` puts it.
func find() (string, error) {
	if path := os.Getenv("FERRETDB_BIN"); path != "" {
		return path, nil
	}
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.work")); err != nil {
			continue
		}
		path := filepath.Join(dir, ".bin", "ferretdb")
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("FerretDB was not found: build it by `make ferretdb`, or name it by FERRETDB_BIN")
}
