package pg

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/turumba/turumba/kit/clock"
)

// schemaPoll is how often AwaitSchema looks.
const schemaPoll = 500 * time.Millisecond

// AwaitSchema returns once the database at url has the newest version of every set, or a
// newer one; whoever owns the schema migrates it. While it waits, one line says for
// what. A server that cannot be reached is an error at once.
func AwaitSchema(ctx context.Context, url string, c clock.Clock, log *slog.Logger, sets ...MigrationSet) error {
	told := ""
	for {
		missing, err := missingSchema(ctx, url, sets)
		if err != nil || missing == "" {
			return err
		}
		if missing != told {
			log.InfoContext(ctx, "waiting for the schema, which another process makes", "missing", missing)
			told = missing
		}
		if err := clock.Sleep(ctx, c, schemaPoll); err != nil {
			return fmt.Errorf("the database has no %s yet: %w", missing, err)
		}
	}
}

// missingSchema says what the database does not have yet; nothing if it is empty.
func missingSchema(ctx context.Context, url string, sets []MigrationSet) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	conn, err := connect(ctx, url)
	if code(err) == "3D000" {
		return "database", nil
	}
	if err != nil {
		return "", unreachable(url, err)
	}
	defer func() { _ = conn.Close(ctx) }() // nothing is pending on it
	for _, set := range sets {
		newest, err := newestVersion(set)
		if err != nil {
			return "", err
		}
		var version int64
		err = conn.QueryRow(ctx, "SELECT coalesce(max(version_id), 0) FROM "+pgx.Identifier{"goose_" + set.Name}.Sanitize()).Scan(&version)
		switch {
		case code(err) == "42501": // it is there, and this login may not read it
		case code(err) == "42P01", err == nil && version < newest:
			return fmt.Sprintf("version %d of %s", newest, set.Name), nil
		case err != nil:
			return "", fmt.Errorf("read the version of %s: %w", set.Name, err)
		}
	}
	return "", nil
}

// newestVersion is the highest version of a set's files, by their names.
func newestVersion(set MigrationSet) (newest int64, err error) {
	files, err := fs.Glob(set.FS, "*.sql")
	if err != nil {
		return 0, fmt.Errorf("migrations of %s: %w", set.Name, err)
	}
	for _, name := range files {
		number, _, _ := strings.Cut(name, "_")
		v, err := strconv.ParseInt(number, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("migrations of %s: %q has no version", set.Name, name)
		}
		newest = max(newest, v)
	}
	return newest, nil
}
