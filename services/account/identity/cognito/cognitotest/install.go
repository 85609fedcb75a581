package cognitotest

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// manifest pins the emulator and everything below it, with their checksums.
//
//go:embed package.json package-lock.json
var manifest embed.FS

// Install returns the program of the emulator and the node that runs it, fetching the
// emulator with the machine's own npm client into the user's cache, once.
func Install(ctx context.Context) (node, program string, err error) {
	if node, err = exec.LookPath("node"); err != nil {
		return "", "", fmt.Errorf("node was not found: %w", err)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", "", fmt.Errorf("no cache for the emulator: %w", err)
	}
	cache = filepath.Join(cache, "turumba")
	home, err := homeIn(cache)
	if err != nil {
		return "", "", err
	}
	program = filepath.Join(home, "node_modules", "cognito-local", "lib", "bin", "start.js")
	if _, err := os.Stat(program); err == nil {
		return node, program, nil
	}
	if err := fetch(ctx, cache, home); err != nil {
		if _, e := os.Stat(program); e != nil { // another process may have been first
			return "", "", err
		}
	}
	return node, program, nil
}

// homeIn is the folder of the emulator, one for each set of pinned packages.
func homeIn(cache string) (string, error) {
	lock, err := manifest.ReadFile("package-lock.json")
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(lock)
	return filepath.Join(cache, "cognito-local-"+hex.EncodeToString(sum[:6])), nil
}

// fetch installs beside the place and moves it there.
func fetch(ctx context.Context, cache, home string) error {
	npm, err := exec.LookPath("npm")
	if err != nil {
		return fmt.Errorf("npm was not found: %w", err)
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(cache, "fetch-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(tmp) }() // leftovers only cost space
	if err := os.CopyFS(tmp, manifest); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
	cmd.Dir = tmp
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("npm ci: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return os.Rename(tmp, home)
}
