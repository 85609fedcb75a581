package messaging_test

import (
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/services/messaging"
)

func TestCountSegments(t *testing.T) {
	t.Parallel()
	r := strings.Repeat
	for name, c := range map[string]struct {
		text     string
		encoding messaging.Encoding
		units, n int
	}{
		"nothing":                       {"", messaging.EncodingGSM7, 0, 0},
		"160":                           {r("a", 160), messaging.EncodingGSM7, 160, 1},
		"161":                           {r("a", 161), messaging.EncodingGSM7, 161, 2},
		"306":                           {r("a", 306), messaging.EncodingGSM7, 306, 2},
		"307":                           {r("a", 307), messaging.EncodingGSM7, 307, 3},
		"80 euros":                      {r("€", 80), messaging.EncodingGSM7, 160, 1},
		"81 euros":                      {r("€", 81), messaging.EncodingGSM7, 162, 2},
		"a pair at the end of a part":   {r("a", 152) + "€" + r("a", 10), messaging.EncodingGSM7, 164, 2},
		"pairs leave room in each part": {r("€", 153), messaging.EncodingGSM7, 306, 3},
		"all extended":                  {"\f^{}\\[~]|€", messaging.EncodingGSM7, 20, 1},
		"national ones":                 {"@£$¥èéùìòÇØøÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ¤¡ÄÖÑÜ§¿äöñüà", messaging.EncodingGSM7, 42, 1},
		"ASCII that has none":           {"`", messaging.EncodingUCS2, 1, 1},
		"a small ç":                     {"ç", messaging.EncodingUCS2, 1, 1},
		"a tab":                         {"\t", messaging.EncodingUCS2, 1, 1},
		"70 Cyrillic":                   {r("ж", 70), messaging.EncodingUCS2, 70, 1},
		"71 Cyrillic":                   {r("ж", 71), messaging.EncodingUCS2, 71, 2},
		"134 Ethiopic":                  {r("ሰ", 134), messaging.EncodingUCS2, 134, 2},
		"135 Ethiopic":                  {r("ሰ", 135), messaging.EncodingUCS2, 135, 3},
		"35 emoji":                      {r("😀", 35), messaging.EncodingUCS2, 70, 1},
		"36 emoji":                      {r("😀", 36), messaging.EncodingUCS2, 72, 2},
		"67 emoji: 33 in a part":        {r("😀", 67), messaging.EncodingUCS2, 134, 3},
		"one emoji makes all UCS-2":     {r("a", 69) + "😀", messaging.EncodingUCS2, 71, 2},
	} {
		require.Equal(t, messaging.Segments{Encoding: c.encoding, Units: c.units, Count: c.n}, messaging.CountSegments(c.text), name)
	}
}

// TestDefaultAlphabet: 128 places, of which one is the escape.
func TestDefaultAlphabet(t *testing.T) {
	t.Parallel()
	basic, extended := 0, 0
	for r := rune(0); r <= 0xFFFF; r++ {
		if r >= 0xD800 && r <= 0xDFFF { // half of a pair is no character
			continue
		}
		s := messaging.CountSegments(string(r))
		switch {
		case s.Encoding == messaging.EncodingUCS2:
		case s.Units == 1:
			basic++
		default:
			extended++
		}
	}
	require.Equal(t, 127, basic)
	require.Equal(t, 10, extended)
}

func FuzzCountSegments(f *testing.F) {
	for _, s := range []string{"", "a", strings.Repeat("€", 81), strings.Repeat("😀", 40), "\xff", strings.Repeat("a", 152) + "€€", "ሰላም"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s := messaging.CountSegments(text)
		single, part := 160, 153
		if s.Encoding == messaging.EncodingUCS2 {
			single, part = 70, 67
			require.Len(t, utf16.Encode([]rune(text)), s.Units)
		}
		switch {
		case text == "":
			require.Zero(t, s.Count)
		case s.Units <= single:
			require.Equal(t, 1, s.Count)
		default: // at most one unit of each part stays empty, but of the last
			require.GreaterOrEqual(t, s.Count*part, s.Units)
			require.LessOrEqual(t, (s.Count-1)*(part-1), s.Units)
		}
		more := messaging.CountSegments(text + "a")
		require.GreaterOrEqual(t, more.Count, s.Count)
		require.Equal(t, s.Units+1, more.Units)
	})
}
