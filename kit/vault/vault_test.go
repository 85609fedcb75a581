package vault_test

import (
	"bytes"
	"encoding/base64"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/turumba/turumba/kit/vault"
)

func key(b byte) []byte { return bytes.Repeat([]byte{b}, 32) }

func open(t testing.TB, master []byte, previous ...[]byte) *vault.Vault {
	t.Helper()
	v, err := vault.New(master, previous...)
	require.NoError(t, err)
	return v
}

func place() vault.AAD {
	return vault.AAD{Account: "a", Resource: "r", Field: "smtp.password", Version: 3}
}

func TestSealOpen(t *testing.T) {
	t.Parallel()
	v := open(t, key(1))
	rapid.Check(t, func(rt *rapid.T) {
		plaintext := rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(rt, "plaintext")
		aad := vault.AAD{
			Account: rapid.String().Draw(rt, "account"), Resource: rapid.String().Draw(rt, "resource"),
			Field: rapid.String().Draw(rt, "field"), Version: rapid.Int().Draw(rt, "version"),
			Destination: rapid.SliceOf(rapid.Byte()).Draw(rt, "destination"),
		}
		sealed, err := v.Seal(aad, plaintext)
		require.NoError(rt, err)
		got, err := v.Open(aad, sealed)
		require.NoError(rt, err)
		require.True(rt, bytes.Equal(plaintext, got))

		i := rapid.IntRange(0, len(sealed)-1).Draw(rt, "flip")
		sealed[i] ^= 1
		_, err = v.Open(aad, sealed)
		require.Error(rt, err)
	})
}

func TestSealIsRandomAndBound(t *testing.T) {
	t.Parallel()
	v := open(t, key(1))
	one, err := v.Seal(place(), []byte("hunter2"))
	require.NoError(t, err)
	two, err := v.Seal(place(), []byte("hunter2"))
	require.NoError(t, err)
	require.NotEqual(t, one, two)
	require.NotContains(t, string(one), "hunter2")

	for name, change := range map[string]func(*vault.AAD){
		"account":  func(a *vault.AAD) { a.Account = "b" },
		"resource": func(a *vault.AAD) { a.Resource = "q" },
		"field":    func(a *vault.AAD) { a.Field = "other" },
		"version":  func(a *vault.AAD) { a.Version++ },
		"shifted":  func(a *vault.AAD) { a.Account, a.Resource = "ar", "" },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			aad := place()
			change(&aad)
			_, err := v.Open(aad, one)
			require.ErrorIs(t, err, vault.ErrCorrupt)
		})
	}
	_, err = v.Seal(place(), make([]byte, vault.MaxPlaintext+1))
	require.Error(t, err)
}

func TestRotation(t *testing.T) {
	t.Parallel()
	old, next := open(t, key(1)), open(t, key(2), key(1))
	sealed, err := old.Seal(place(), []byte("secret"))
	require.NoError(t, err)
	_, err = open(t, key(2)).Open(place(), sealed)
	require.ErrorIs(t, err, vault.ErrUnknownKey)

	got, err := next.Open(place(), sealed)
	require.NoError(t, err)
	require.Equal(t, "secret", string(got))

	rewrapped, changed, err := next.Rewrap(place(), sealed)
	require.NoError(t, err)
	require.True(t, changed)
	got, err = open(t, key(2)).Open(place(), rewrapped)
	require.NoError(t, err)
	require.Equal(t, "secret", string(got))
	same, changed, err := next.Rewrap(place(), rewrapped)
	require.NoError(t, err)
	require.False(t, changed)
	require.Equal(t, rewrapped, same)
	_, _, err = old.Rewrap(place(), rewrapped)
	require.ErrorIs(t, err, vault.ErrUnknownKey)
	require.NotEqual(t, old.KeyID(), next.KeyID())
	require.Len(t, next.KeyID(), 16)
}

// TestDestinations: a value opens for its destination alone. One that was sealed
// without any is bound by Rewrap, and opens only then.
func TestDestinations(t *testing.T) {
	t.Parallel()
	v, next := open(t, key(1)), open(t, key(2), key(1))
	here, there := place(), place()
	here.Destination, there.Destination = []byte("here"), []byte("there")
	sealed, err := v.Seal(here, []byte("secret"))
	require.NoError(t, err)
	got, err := v.Open(here, sealed)
	require.NoError(t, err)
	require.Equal(t, "secret", string(got))
	for name, aad := range map[string]vault.AAD{"another": there, "none": place()} {
		_, err = v.Open(aad, sealed)
		require.ErrorIs(t, err, vault.ErrCorrupt, name)
		_, _, err = next.Rewrap(aad, sealed)
		require.ErrorIs(t, err, vault.ErrCorrupt, name)
	}
	sealed[0] = 1
	_, err = v.Open(here, sealed)
	require.ErrorIs(t, err, vault.ErrUnbound)
	_, _, err = v.Rewrap(there, sealed)
	require.ErrorIs(t, err, vault.ErrCorrupt, "a value does not become an unbound one by its first byte")

	former, err := v.Seal(place(), []byte("secret"))
	require.NoError(t, err)
	_, err = v.Open(here, former)
	require.ErrorIs(t, err, vault.ErrUnbound)
	bound, changed, err := next.Rewrap(here, former)
	require.NoError(t, err)
	require.True(t, changed)
	got, err = open(t, key(2)).Open(here, bound)
	require.NoError(t, err)
	require.Equal(t, "secret", string(got))
	_, changed, err = next.Rewrap(here, bound)
	require.NoError(t, err)
	require.False(t, changed)
	_, err = next.Open(there, bound)
	require.ErrorIs(t, err, vault.ErrCorrupt)
}

func TestFingerprint(t *testing.T) {
	t.Parallel()
	v := open(t, key(1))
	here := vault.AAD{Account: "a", Resource: "r", Field: "f", Version: 1, Destination: []byte("d")}
	of := func(v *vault.Vault, place vault.AAD, secret string) string {
		return v.Fingerprint(place, []byte(secret))
	}
	require.Regexp(t, "^[0-9a-f]{8}$", of(v, here, "x"))
	require.Equal(t, of(v, here, "x"), of(open(t, key(1)), here, "x"))
	require.NotEqual(t, of(v, here, "x"), of(v, here, "y"))
	require.NotEqual(t, of(v, here, "x"), of(open(t, key(2)), here, "x"))
	moved := here
	moved.Destination = nil
	require.Equal(t, of(v, here, "x"), of(v, moved, "x"), "the secret is the same wherever it goes")
	for _, elsewhere := range []vault.AAD{{Account: "b", Resource: "r", Field: "f"}, {Account: "a", Resource: "s", Field: "f"}, {Account: "a", Resource: "r", Field: "g"}} {
		elsewhere.Version = 1
		require.NotEqual(t, of(v, here, "x"), of(v, elsewhere, "x"), "who may look at one place cannot compare it with another")
	}
}

func TestNewRefusesOtherLengths(t *testing.T) {
	t.Parallel()
	_, err := vault.New(make([]byte, 16))
	require.ErrorContains(t, err, "must be 32 bytes")
	_, err = vault.New(key(1), nil)
	require.ErrorContains(t, err, "must be 32 bytes")
}

func TestParseKey(t *testing.T) {
	t.Parallel()
	raw := bytes.Repeat([]byte{0xfb, 0xef}, 16)
	for _, enc := range []*base64.Encoding{base64.StdEncoding, base64.RawStdEncoding, base64.URLEncoding, base64.RawURLEncoding} {
		got, err := vault.ParseKey(" " + enc.EncodeToString(raw) + "\n")
		require.NoError(t, err)
		require.Equal(t, raw, got)
	}
	_, err := vault.ParseKey(" \n")
	require.ErrorIs(t, err, vault.ErrNoKey)
	for text, want := range map[string]string{"not*base64": "it is not base64", "aGVsbG8=": "it has 5"} {
		_, err := vault.ParseKey(text)
		require.ErrorContains(t, err, want)
		require.NotContains(t, err.Error(), text)
	}
}

func TestLoadOrCreateKey(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "master.key")
	keys := make([][]byte, 8)
	errs := make([]error, len(keys))
	var wg sync.WaitGroup
	for i := range keys {
		wg.Go(func() { keys[i], errs[i] = vault.LoadOrCreateKey(path) })
	}
	wg.Wait()
	for i := range keys {
		require.NoError(t, errs[i])
		require.Equal(t, keys[0], keys[i])
	}
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	left, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	require.Len(t, left, 1)
}

func TestLoadOrCreateKeyRefuses(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name, content string
		mode          os.FileMode
		want          string
	}{
		{"open to others", base64.StdEncoding.EncodeToString(key(1)), 0o644, "chmod 600"},
		{"empty", "", 0o600, "is empty"},
		{"short", "aGVsbG8=", 0o600, "must be 32 bytes"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "master.key")
			require.NoError(t, os.WriteFile(path, []byte(c.content), c.mode))
			require.NoError(t, os.Chmod(path, c.mode))
			_, err := vault.LoadOrCreateKey(path)
			require.ErrorContains(t, err, c.want)
		})
	}
	_, err := vault.LoadOrCreateKey(filepath.Join(t.TempDir(), "missing", "master.key"))
	require.ErrorIs(t, err, os.ErrNotExist)
}

func FuzzOpen(f *testing.F) {
	v := open(f, key(1))
	sealed, err := v.Seal(place(), []byte("secret"))
	require.NoError(f, err)
	f.Add(sealed)
	f.Add(sealed[:len(sealed)-1])
	f.Add([]byte{})
	f.Add([]byte{1})
	f.Fuzz(func(t *testing.T, data []byte) {
		if got, err := v.Open(place(), data); err == nil {
			require.Equal(t, "secret", string(got), "only what Seal made may open")
		}
		_, _, err := v.Rewrap(vault.AAD{}, data)
		require.Error(t, err)
	})
}
