package security_test

import (
	"io/fs"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestTheTableNamesTests keeps docs/security-tests.md from naming what is gone.
func TestTheTableNamesTests(t *testing.T) {
	t.Parallel()
	root := os.DirFS("../..")
	source := strings.Builder{}
	require.NoError(t, fs.WalkDir(root, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		b, err := fs.ReadFile(root, path)
		source.Write(b)
		return err
	}))
	table, err := fs.ReadFile(root, "docs/security-tests.md")
	require.NoError(t, err)
	names := regexp.MustCompile("`((?:Test|Fuzz)[A-Za-z0-9]+)`").FindAllSubmatch(table, -1)
	require.NotEmpty(t, names)
	for _, name := range names {
		require.Contains(t, source.String(), "func "+string(name[1])+"(", "docs/security-tests.md names a test that is not there")
	}
}
