package local

import (
	"encoding/base32"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/services/account/identity"
)

// TestTotpSteps uses the vectors of RFC 4226 appendix D, whose counters are the
// steps of RFC 6238.
func TestTotpSteps(t *testing.T) {
	t.Parallel()
	secret := base32.StdEncoding.EncodeToString([]byte("12345678901234567890"))
	codes := []string{"755224", "287082", "359152", "969429", "338314", "254676", "287922", "162583", "399871", "520489"}
	for step, code := range codes {
		at := time.Unix(int64(step)*totpStep+7, 0)
		got, ok := totpStepOf(secret, code, at)
		require.True(t, ok, step)
		require.EqualValues(t, step, got)
		for _, away := range []int64{-1, 1} { // a clock that is off by one step
			got, ok = totpStepOf(secret, code, at.Add(time.Duration(away)*totpStep*time.Second))
			require.True(t, ok, step)
			require.EqualValues(t, step, got)
		}
		for _, away := range []int64{-2, 2} {
			if int64(step)+away < 0 {
				continue
			}
			_, ok = totpStepOf(secret, code, at.Add(time.Duration(away)*totpStep*time.Second))
			require.False(t, ok, step)
		}
	}
}

func TestRecoveryCodes(t *testing.T) {
	t.Parallel()
	codes, hashes := newRecoveryCodes("u")
	require.Len(t, codes, 10)
	for i, code := range codes {
		require.Regexp(t, "^[a-z2-7]{5}-[a-z2-7]{5}$", code)
		require.Equal(t, hashes[i], identity.HashCode("u", normalCode(code)))
		require.False(t, sixDigits.MatchString(normalCode(code)))
	}
}
