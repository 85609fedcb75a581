package messaging_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/services/messaging"
)

func unsubscriber(t testing.TB, base string, key byte) *messaging.Unsubscriber {
	t.Helper()
	u, err := messaging.NewUnsubscriber(base, bytes.Repeat([]byte{key}, 32))
	require.NoError(t, err)
	return u
}

func TestUnsubscribeLinks(t *testing.T) {
	t.Parallel()
	u := unsubscriber(t, "https://mail.example.org/", 1)
	who := messaging.WayOut{AccountID: messaging.NewID(), ChannelType: messaging.TypeEmail, Address: "Bob@Example.org"}
	link := u.URL(who)
	token, ok := strings.CutPrefix(link, "https://mail.example.org/unsubscribe/")
	require.True(t, ok, link)
	require.Regexp(t, "^[A-Za-z0-9_-]+$", token)
	require.Equal(t, link, u.URL(who), "every attempt is the same")
	got, err := u.Open(token)
	require.NoError(t, err)
	require.Equal(t, messaging.WayOut{AccountID: who.AccountID, ChannelType: messaging.TypeEmail, Address: "bob@example.org"}, got)

	other := who
	other.Address = "eve@example.org"
	require.NotEqual(t, link[:60], u.URL(other)[:60])
	for name, bad := range map[string]string{
		"empty": "", "cut": token[:len(token)-4], "of another key": unsubscriber(t, "", 2).Token(who), "padded": token + "=", "no base64": "ü",
		"changed": strings.ToUpper(token),
	} {
		_, err := u.Open(bad)
		require.True(t, apierr.HasReason(err, errorv1.Reason_REASON_NOT_FOUND), name)
	}
	require.Empty(t, unsubscriber(t, "", 1).URL(who), "no public URL, no link")
	require.Empty(t, (*messaging.Unsubscriber)(nil).URL(who))
	_, err = unsubscriber(t, "", 1).Open(token)
	require.NoError(t, err, "old links go on to work")
}

func TestCheckPublicURL(t *testing.T) {
	t.Parallel()
	for url, ok := range map[string]bool{
		"": true, "https://mail.example.org": true, "http://localhost:8080/": true, "https://example.org/turumba": true,
		"mail.example.org": false, "ftp://x": false, "https://": false, "https://u:p@x": false, "https://x?a=b": false,
	} {
		require.Equal(t, ok, messaging.CheckPublicURL(url) == nil, url)
	}
}

func FuzzUnsubscribeToken(f *testing.F) {
	u := unsubscriber(f, "", 1)
	who := messaging.WayOut{AccountID: "0190a000-0000-7000-8000-000000000001", ChannelType: "email", Address: "a@example.org"}
	f.Add(u.Token(who))
	f.Add("")
	f.Add("AAAA")
	f.Fuzz(func(t *testing.T, token string) {
		if got, err := u.Open(token); err == nil {
			require.Equal(t, who, got, "only what Token made may open")
		}
	})
}
