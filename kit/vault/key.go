package vault

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// ErrNoKey means that no master key was given.
var ErrNoKey = errors.New("master key is missing: set TURUMBA_MASTER_KEY to 32 random bytes in base64 (openssl rand -base64 32)")

// ParseKey reads a master key: 32 bytes in base64, standard or URL alphabet,
// padded or not, white space around it ignored. The error is ErrNoKey or says
// what is wrong; it never holds the key.
func ParseKey(text string) ([]byte, error) {
	text = strings.TrimRight(strings.TrimSpace(text), "=")
	if text == "" {
		return nil, ErrNoKey
	}
	text = strings.NewReplacer("-", "+", "_", "/").Replace(text)
	key, err := base64.RawStdEncoding.DecodeString(text)
	if err != nil {
		return nil, errors.New("master key is wrong: it is not base64")
	}
	if len(key) != keySize {
		return nil, fmt.Errorf("master key is wrong: it must be %d bytes in base64, it has %d", keySize, len(key))
	}
	return key, nil
}

// LoadOrCreateKey returns the master key in the file at path, making the file
// (mode 0600) with a new random key if there is none. Processes that start
// together get the same key. A file that others may read is refused.
func LoadOrCreateKey(path string) ([]byte, error) {
	key, err := loadKey(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	if err := createKey(path); err != nil {
		return nil, fmt.Errorf("create master key: %w", err)
	}
	return loadKey(path)
}

func loadKey(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("read master key: %w", err)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, fmt.Errorf("master key file %s may be read by others (mode %04o): chmod 600 it", path, mode)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read master key: %w", err)
	}
	key, err := ParseKey(string(text))
	if errors.Is(err, ErrNoKey) {
		return nil, fmt.Errorf("master key file %s is empty", path)
	}
	if err != nil {
		return nil, fmt.Errorf("file %s: %w", path, err)
	}
	return key, nil
}

// createKey writes a new key beside path, makes it durable, and links it to path,
// which fails without harm if another process was first.
func createKey(path string) error {
	dir := filepath.Dir(path)
	file, err := os.CreateTemp(dir, ".master-key-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(file.Name()) }()
	_, err = file.WriteString(base64.StdEncoding.EncodeToString(random(keySize)) + "\n")
	err = errors.Join(err, file.Sync(), file.Close())
	if err != nil {
		return err
	}
	if err := os.Link(file.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
