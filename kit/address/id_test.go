package address_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/kit/address"
)

func TestID(t *testing.T) {
	t.Parallel()
	for want, spellings := range map[string][]string{
		"123456789":      {"123456789", " 123456789 ", "\u202a123456789\u202c", "\u0661\u0662\u0663\u0664\u0665\u0666\u0667\u0668\u0669", "\uff11\uff12\uff13\uff14\uff15\uff16\uff17\uff18\uff19"},
		"-1001234567890": {"-1001234567890", "\u200e-1001234567890"},
		"@some_channel":  {"@some_channel", "@some_channel\n"},
	} {
		for _, s := range spellings {
			got, err := address.ID(s)
			require.NoError(t, err, "%q", s)
			require.Equal(t, want, got, "%q", s)
		}
	}
	for _, s := range []string{"", " ", "a b", "1\n2", "1\u200b2", "\x00"} {
		_, err := address.ID(s)
		require.ErrorIs(t, err, address.ErrID, "%q", s)
	}
}
