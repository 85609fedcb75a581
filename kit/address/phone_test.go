package address_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/kit/address"
)

// TestPhone: what people write for one number is one number.
func TestPhone(t *testing.T) {
	t.Parallel()
	for want, spellings := range map[string]map[string][]string{
		"+251911000001": {
			"": {
				"+251911000001", "+251 911 000 001", "+251-911-000-001", "+251 (0) 911 000 001", "+251 (0)911-000-001", "+251.911.000.001", "00251911000001",
				"00 251 911 00 00 01", " +251911000001 ", "\u202a+251911000001\u202c", "\u200e+251911000001", "+251\u00a0911\u00a0000\u00a0001", "+251 911\u2011000\u2011001",
				"+251\u200b911000001", "\ufeff+251911000001", "+\u0662\u0665\u0661\u0669\u0661\u0661\u0660\u0660\u0660\u0660\u0660\u0661", "\uff0b251911000001", "+２５１９１１０００００１",
				"tel:+251-911-000-001", "tel:+251911000001", "+251/911/000/001", "+251 9 11 00 00 01", "\u2066+251 911 000001\u2069",
			},
			"ET": {
				"0911000001", "911000001", "251911000001", "0911 000 001", "0911-00-00-01", "(0911) 000 001", "(0)911000001", "+251911000001", "00251911000001",
				"251 911 000 001", "251-911-000001", "0911/000001", "0911.000.001", "\u202d0911 000 001\u202c", "０９１１０００００１",
			},
			"US": {"+251911000001", "011 251 911 000 001", "011251911000001", "00251911000001"},
			"DE": {"00251911000001", "+251 911 000001"},
		},
		"+15550002222": {
			"":   {"+15550002222", "+1 (555) 000-2222", "+1-555-000-2222", "+1.555.000.2222", "+1 555 000 2222", "0015550002222"},
			"US": {"1 (555) 000-2222", "(555) 000-2222", "555-000-2222", "5550002222", "15550002222", "1-555-000-2222", "555.000.2222", "1.555.000.2222", "011 1 555 000 2222"},
			"CA": {"(555) 000-2222", "1 555 000 2222"},
		},
		"+442079460958": {
			"":   {"+442079460958", "+44 20 7946 0958", "+44 (0)20 7946 0958", "+44 (0) 20 7946 0958", "+44(0)2079460958", "0044 20 7946 0958", "00442079460958"},
			"GB": {"020 7946 0958", "(020) 7946 0958", "02079460958", "2079460958", "44 20 7946 0958", "442079460958", "00 44 20 7946 0958"},
		},
		"+4930123456": {
			"":   {"+4930123456", "+49 30 123456", "+49 (0)30 123456", "+49-30-123456", "0049 30 123456", "+49 30 / 123456"},
			"DE": {"030 123456", "030/123456", "(030) 123456", "0049 30 123456", "030-123456", "030 12 34 56"},
		},
		"+79161234567": {
			"":   {"+79161234567", "+7 916 123-45-67", "+7 (916) 123 45 67"},
			"RU": {"8 916 123-45-67", "89161234567", "8 (916) 123-45-67", "9161234567", "79161234567", "+7 916 1234567"},
		},
		"+390612345678": { // a leading zero that belongs to the number
			"":   {"+390612345678", "+39 06 1234 5678", "0039 06 12345678"},
			"IT": {"06 1234 5678", "0612345678", "(06) 12345678"},
		},
		"+919876543210": {
			"":   {"+919876543210", "+91 98765 43210", "+91-98765-43210", "0091 98765 43210"},
			"IN": {"98765 43210", "098765 43210", "9876543210", "09876543210", "919876543210"},
		},
		"+254712345678": {
			"":   {"+254712345678", "+254 712 345 678", "+254 (0) 712 345678"},
			"KE": {"0712345678", "0712 345 678", "712345678", "254712345678", "000254712345678"},
		},
		"+81312345678": {
			"JP": {"03-1234-5678", "0312345678", "010 81 3 1234 5678", "+81 3 1234 5678", "81-3-1234-5678"},
		},
	} {
		for region, list := range spellings {
			for _, s := range list {
				got, err := address.Phone(s, region)
				require.NoError(t, err, "%q in %q", s, region)
				require.Equal(t, want, got, "%q in %q", s, region)
				again, err := address.Phone(got, region)
				require.NoError(t, err)
				require.Equal(t, got, again, "it is its own form")
			}
		}
	}
}

// TestNoPhone: what could be a number of somebody else is refused, with the reason.
func TestNoPhone(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		s, region string
		want      error
	}{
		{"", "ET", address.ErrPhone},
		{"none", "ET", address.ErrPhone},
		{"-", "ET", address.ErrPhone},
		{"+", "", address.ErrPhone},
		{"+0911000001", "", address.ErrPhone},
		{"+12", "", address.ErrPhone},
		{"+1234567890123456", "", address.ErrPhone},
		{"+99912345678", "", address.ErrPhone},
		{"0911000001", "", address.ErrCountry},
		{"911 000 001", "", address.ErrCountry},
		{"+251911000001 ext. 5", "", address.ErrExtension},
		{"0911000001 x12", "ET", address.ErrExtension},
		{"tel:+251911000001;ext=7", "", address.ErrExtension},
		{"0911000001 / 0922000002", "ET", address.ErrPhone},
		{"0911000001, 0922000002", "ET", address.ErrPhone},
		{"0911000001;0922000002", "ET", address.ErrExtension},
		{"0911000001 or 0922000002", "ET", address.ErrPhone},
		{"+251911000001x", "", address.ErrPhone},
		{"call +251911000001", "", address.ErrPhone},
		{"+251911000001 (home)", "", address.ErrPhone},
		{"1-800-FLOWERS", "US", address.ErrPhone},
		{"a@example.org", "ET", address.ErrPhone},
		{"2.51911E+11", "ET", address.ErrPhone},
		{"2,51911E+11", "ET", address.ErrPhone},
		{"1/2/2024", "US", address.ErrPhone},
		{"\x00911000001", "ET", address.ErrPhone},
	} {
		got, err := address.Phone(c.s, c.region)
		require.ErrorIs(t, err, c.want, "%q in %q is %q", c.s, c.region, got)
	}
}

func TestRegion(t *testing.T) {
	t.Parallel()
	for code, want := range map[string]string{"+251": "ET", "251": "ET", "+1": "US", "+7": "RU", "+44": "GB", "+39": "IT", "+61": "AU", "+590": "GP", "+47": "NO", "+358": "FI"} {
		got, ok := address.Region(code)
		require.True(t, ok, code)
		require.Equal(t, want, got, code)
	}
	for _, code := range []string{"", "+", "+0", "+999", "ET", "+800", "+2511", "+25x"} {
		_, ok := address.Region(code)
		require.False(t, ok, code)
	}
}

// FuzzPhone: what is read is the form of E.164, and reading it again changes nothing.
func FuzzPhone(f *testing.F) {
	for _, s := range []string{"+251 (0) 911 000 130", "0911000001", "1 (555) 000-2222", "tel:+1-555-000-2222;ext=3", "\u202a+251911000001\u202c"} {
		f.Add(s, "ET")
	}
	f.Fuzz(func(t *testing.T, s, region string) {
		got, err := address.Phone(s, region)
		if err != nil {
			return
		}
		require.Regexp(t, `^\+[1-9][0-9]{4,16}$`, got)
		again, err := address.Phone(got, region)
		require.NoError(t, err)
		require.Equal(t, got, again)
	})
}
