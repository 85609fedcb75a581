package postgres

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var (
	writesCredentials = regexp.MustCompile(`(?i)(INSERT INTO|DELETE FROM|UPDATE)\s+(sessions|refresh_tokens|login_challenges|password_resets|user_totp|recovery_codes)\b|UPDATE users SET[^;]*(password_hash|credential_epoch|sessions_since)`)
	readsPermissions  = regexp.MustCompile(`(?is)account_users\b.*\bpermissions\b|\bpermissions\b.*account_users\b`)
)

// TestCredentialsAreHeld: every statement that changes what a user logs in by is in a
// method of Held, which has locked the user; and what somebody may do is asked of the
// view acting_members alone (ADR 0044). A new statement elsewhere fails here.
func TestCredentialsAreHeld(t *testing.T) {
	t.Parallel()
	without := map[string]string{
		"Purge": "removes what has expired, which works no more",
	}
	set := token.NewFileSet()
	names, err := fs.Glob(os.DirFS("."), "*.go")
	require.NoError(t, err)
	held := 0
	for _, path := range names {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(set, path, nil, 0)
		require.NoError(t, err)
		for _, d := range file.Decls {
			name, receiver := "a declaration", ""
			if f, ok := d.(*ast.FuncDecl); ok {
				name = f.Name.Name
				if f.Recv != nil {
					if star, ok := f.Recv.List[0].Type.(*ast.StarExpr); ok {
						receiver = star.X.(*ast.Ident).Name
					}
				}
			}
			ast.Inspect(d, func(n ast.Node) bool {
				lit, ok := n.(*ast.BasicLit)
				if !ok || lit.Kind != token.STRING {
					return true
				}
				require.NotRegexp(t, readsPermissions, lit.Value, "%s: ask acting_members", set.Position(lit.Pos()))
				if !writesCredentials.MatchString(lit.Value) || without[name] != "" {
					return true
				}
				require.Equal(t, "Held", receiver, "%s: %s changes credentials and does not hold their user", set.Position(lit.Pos()), name)
				held++
				return true
			})
		}
	}
	require.Greater(t, held, 10)
	others, err := os.ReadDir("..")
	require.NoError(t, err)
	for _, o := range others { // no statement of another package does
		if !o.IsDir() || o.Name() == "postgres" || o.Name() == "storetest" {
			continue
		}
		require.NoError(t, fs.WalkDir(os.DirFS("../"+o.Name()), ".", func(path string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			data, err := os.ReadFile("../" + o.Name() + "/" + path)
			require.NotRegexp(t, writesCredentials, string(data), path)
			return err
		}))
	}
}
