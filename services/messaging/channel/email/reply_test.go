package email

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/services/messaging/channel"
)

func FuzzReply(f *testing.F) {
	for _, seed := range []string{
		"250 ok\r\n", "250-a\r\n250-b\r\n250 c\r\n", "250\r\n", "250-a\r\n251 b\r\n", "25", "99x hi\r\n", "220_x\r\n", "550 5.1.1 no\n",
		"451 4.7.1 wait 300 seconds\r\n", strings.Repeat("250-x\r\n", 200), "250 " + strings.Repeat("y", 5000) + "\r\n",
	} {
		f.Add([]byte(seed))
	}
	redact := channel.NewRedactor("hunter22")
	f.Fuzz(func(t *testing.T, data []byte) {
		r := bufio.NewReaderSize(bytes.NewReader(data), readBuffer)
		for {
			rep, err := readReply(r, nil)
			if err != nil {
				require.True(t, errors.Is(err, errProtocol) || errors.Is(err, io.ErrUnexpectedEOF))
				return
			}
			require.True(t, rep.code >= 200 && rep.code <= 599)
			require.LessOrEqual(t, len(rep.text), maxReplyBytes+readBuffer)
			parseExtensions(rep.text)
			for at := stageGreeting; at <= stageEnd; at++ {
				res := refused(redact, at, rep, "bob@example.test")
				require.NotEqual(t, "invalid", res.Class.String())
				require.LessOrEqual(t, len(res.Text), channel.MaxText)
				require.LessOrEqual(t, len(res.RawExcerpt), channel.MaxExcerpt)
				require.LessOrEqual(t, res.RetryAfter, channel.MaxRetryAfter)
				require.NotContains(t, res.Text+res.RawExcerpt, "hunter22")
			}
		}
	})
}

func TestRetryHints(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]time.Duration{
		"try in 300 seconds": 5 * time.Minute, "5 minutes": 5 * time.Minute, "wait 10sec": 10 * time.Second, "in 0 seconds": 0,
		"99999999999999999999 seconds": 0, "in 2 hours": channel.MaxRetryAfter, "code 7 then 30 Seconds": 30 * time.Second,
		"nothing": 0, "12": 0, "12 apples": 0,
	} {
		require.Equal(t, want, retryHint([]byte(text)), text)
	}
}

func TestExtensions(t *testing.T) {
	t.Parallel()
	got := parseExtensions([]byte("PIPELINING is my name\npipelining\nSIZE 1000\nAUTH=LOGIN plain\n8BITMIME\nSMTPUTF8\nSTARTTLS\n\nSIZE x"))
	require.Equal(t, extensions{pipelining: true, eightBit: true, utf8: true, startTLS: true, plain: true, login: true, sizeGiven: true}, got)
	require.Equal(t, extensions{}, parseExtensions([]byte("PIPELINING")))
}
