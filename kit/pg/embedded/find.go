//go:build unix

package embedded

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
)

// Find returns the connection URL of a database of the server that another process
// runs on the data folder, for what operators do beside it. Its errors are one line.
func Find(ctx context.Context, dataDir, database string) (string, error) {
	dir, err := filepath.Abs(dataDir)
	if err != nil {
		return "", fmt.Errorf("find the data folder: %w", err)
	}
	s := &Server{data: filepath.Join(dir, "postgres")}
	if _, err := os.Stat(filepath.Join(s.data, "PG_VERSION")); err != nil {
		return "", fmt.Errorf("there are no data in %s (set TURUMBA_DATA_DIR or DATABASE_URL)", dir)
	}
	if s.socketDir, err = socketDir(s.data); err != nil {
		return "", err
	}
	if !s.answers(ctx) {
		return "", fmt.Errorf("no turumba is running on %s (start it, or set TURUMBA_DATA_DIR or DATABASE_URL)", dir)
	}
	return s.URL(database), nil
}
