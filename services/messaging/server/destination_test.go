package server

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	messagingv1 "github.com/turumba/turumba/gen/turumba/messaging/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/secrets"
	"github.com/turumba/turumba/kit/vault"
	"github.com/turumba/turumba/services/messaging"
)

// kinds are all kinds of credentials that the contract has.
func kinds() protoreflect.FieldDescriptors {
	return (&messagingv1.ChannelCredentials{}).ProtoReflect().Descriptor().Oneofs().ByName("kind").Fields()
}

// sample is a value of a plain field; another n is another value, and none is a default.
func sample(fd protoreflect.FieldDescriptor, n int) protoreflect.Value {
	switch fd.Kind() {
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(n%2 == 0)
	case protoreflect.EnumKind:
		values := fd.Enum().Values()
		return protoreflect.ValueOfEnum(values.Get(values.Len() - 1 - n).Number())
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(uint32(2525 + n))
	case protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(int32(2525 + n))
	}
	return protoreflect.ValueOfString(strings.Repeat("x", n+1) + ".example")
}

// request are credentials of a kind, with those of its fields that want takes.
func request(kind protoreflect.FieldDescriptor, n int, want func(protoreflect.FieldDescriptor) bool) *messagingv1.ChannelCredentials {
	in := &messagingv1.ChannelCredentials{}
	m := in.ProtoReflect().Mutable(kind).Message()
	for i := range kind.Message().Fields().Len() {
		if fd := kind.Message().Fields().Get(i); want(fd) {
			m.Set(fd, sample(fd, n))
		}
	}
	return in
}

func is(other protoreflect.FieldDescriptor) func(protoreflect.FieldDescriptor) bool {
	return func(fd protoreflect.FieldDescriptor) bool { return fd == other }
}

func either(a, b func(protoreflect.FieldDescriptor) bool) func(protoreflect.FieldDescriptor) bool {
	return func(fd protoreflect.FieldDescriptor) bool { return a(fd) || b(fd) }
}

func everything(protoreflect.FieldDescriptor) bool { return true }

// channelOf makes a channel of a kind with all its fields and secrets.
func channelOf(t *testing.T, s *Server, kind protoreflect.FieldDescriptor) *messaging.Channel {
	t.Helper()
	c := &messaging.Channel{ID: messaging.NewID(), AccountID: messaging.NewID()}
	in := request(kind, 0, everything)
	setKind(c, in)
	require.Equal(t, string(kind.Name()), c.Provider, "the kind has the name of its provider")
	require.NoError(t, s.changeCredentials(c, in, "credentials"))
	require.Len(t, c.Sealed, len(secrets.Fields(kind.Message())), "every secret of %s is stored", kind.Name())
	shown := request(kind, 0, func(fd protoreflect.FieldDescriptor) bool { return !secrets.Is(fd) })
	require.True(t, proto.Equal(shown, c.Credentials.Message()), "every field of %s is stored: %v", kind.Name(), c.Credentials.Message())
	return c
}

func newServer(t *testing.T) *Server {
	t.Helper()
	v, err := vault.New(bytes.Repeat([]byte{7}, 32))
	require.NoError(t, err)
	return &Server{vault: v, clock: clock.System()}
}

// TestEveryDestinationAsksForItsSecrets walks the contract: each destination of each kind
// of credentials, alone, with all secrets, and with all but one; by value and by mask.
func TestEveryDestinationAsksForItsSecrets(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	for i := range kinds().Len() {
		kind := kinds().Get(i)
		all := secrets.Fields(kind.Message())
		require.NotEmpty(t, all)
		names := make([]string, len(all))
		for i, fd := range all {
			names[i] = "credentials." + string(kind.Name()) + "." + string(fd.Name())
		}
		slices.Sort(names)
		for j := range kind.Message().Fields().Len() {
			fd := kind.Message().Fields().Get(j)
			change := func(in *messagingv1.ChannelCredentials, paths ...string) (*messaging.Channel, error) {
				c := channelOf(t, s, kind)
				return c, s.changeCredentials(c, in, paths...)
			}
			own := "credentials." + string(kind.Name()) + "." + string(fd.Name())
			alone := request(kind, 1, is(fd))
			for _, path := range []string{"credentials", "credentials." + string(kind.Name()), own} {
				_, err := change(alone, path)
				requireSecrets(t, err, names, secrets.IsDestination(fd), "%s by %s", fd.FullName(), path)
				if secrets.IsDestination(fd) {
					require.Contains(t, apierr.From(err).Fields[0].Message, "because "+string(fd.Name())+" changed")
				}
				c, err := change(request(kind, 0, is(fd)), path)
				require.NoError(t, err, "%s by %s stays what it is", fd.FullName(), path)
				_, err = c.Settings(s.vault)
				require.NoError(t, err)
			}
			_, err := change(request(kind, 0, func(protoreflect.FieldDescriptor) bool { return false }), own)
			requireSecrets(t, err, names, secrets.IsDestination(fd), "%s is cleared", fd.FullName())
			if !secrets.IsDestination(fd) {
				continue
			}
			c, err := change(request(kind, 1, either(secrets.Is, is(fd))), "credentials")
			require.NoError(t, err)
			_, err = c.Settings(s.vault)
			require.NoError(t, err, "%s with all secrets", fd.FullName())
			for k, missing := range all {
				some := func(f protoreflect.FieldDescriptor) bool { return secrets.Is(f) && f != missing }
				_, err := change(request(kind, 1, either(some, is(fd))), "credentials")
				requireSecrets(t, err, []string{"credentials." + string(kind.Name()) + "." + string(all[k].Name())}, true, "%s without %s", fd.FullName(), missing.Name())
			}
			// The secret's path may stand before the destination's.
			paths := append(slices.Clone(names), own)
			c, err = change(request(kind, 1, either(secrets.Is, is(fd))), paths...)
			require.NoError(t, err)
			_, err = c.Settings(s.vault)
			require.NoError(t, err, "%s after its secrets", fd.FullName())
			// What was sealed for one destination opens for no other, whoever forgets to ask.
			old := channelOf(t, s, kind)
			old.Credentials = c.Credentials
			_, err = old.Settings(s.vault)
			require.ErrorIs(t, err, vault.ErrCorrupt, "%s was forgotten", fd.FullName())
		}
	}
}

func requireSecrets(t *testing.T, err error, names []string, asked bool, format string, args ...any) {
	t.Helper()
	if !asked {
		require.NoError(t, err, append([]any{format}, args...)...)
		return
	}
	e := apierr.From(err)
	require.Equal(t, errorv1.Reason_REASON_SECRET_REQUIRED, e.Reason, append([]any{format}, args...)...)
	got := make([]string, len(e.Fields))
	for i, f := range e.Fields {
		got[i] = f.Field
	}
	require.Equal(t, names, got, append([]any{format}, args...)...)
}

// TestSpellingsOfADestination: what the adapter cannot tell apart is the same destination,
// and nothing else is.
func TestSpellingsOfADestination(t *testing.T) {
	t.Parallel()
	smtp := func(change func(*messaging.SMTP)) messaging.Credentials {
		c := messaging.SMTP{Host: "mail.example.org", Port: 587, TLSMode: "starttls", Username: "u"}
		change(&c)
		return messaging.Credentials{SMTP: &c}
	}
	twilio := func(url string) messaging.Credentials {
		return messaging.Credentials{Twilio: &messaging.Twilio{AccountSID: "AC1", BaseURL: url}}
	}
	same := func(a, b messaging.Credentials) bool { return bytes.Equal(a.Destination(), b.Destination()) }
	base := smtp(func(*messaging.SMTP) {})
	for name, c := range map[string]struct {
		a, b messaging.Credentials
		same bool
	}{
		"a host in capitals":                    {base, smtp(func(s *messaging.SMTP) { s.Host = "MAIL.Example.ORG" }), true},
		"the port by default":                   {base, smtp(func(s *messaging.SMTP) { s.Port = 0 }), true},
		"the TLS mode by default":               {base, smtp(func(s *messaging.SMTP) { s.TLSMode = "" }), true},
		"a host with a dot after it":            {base, smtp(func(s *messaging.SMTP) { s.Host = "mail.example.org." }), false},
		"a letter that is K in capitals":        {smtp(func(s *messaging.SMTP) { s.Host = "k.example" }), smtp(func(s *messaging.SMTP) { s.Host = "\u212a.example" }), false},
		"a user name in capitals":               {base, smtp(func(s *messaging.SMTP) { s.Username = "U" }), false},
		"a user name that was part of the host": {smtp(func(s *messaging.SMTP) { s.Host, s.Username = "a", "b" }), smtp(func(s *messaging.SMTP) { s.Host, s.Username = "ab", "" }), false},
		"another sender":                        {base, smtp(func(s *messaging.SMTP) { s.FromEmail = "other@example.org" }), true},
		"a URL in capitals":                     {twilio("https://sim.example"), twilio("https://SIM.example"), true},
		"the port of https":                     {twilio("https://sim.example"), twilio("https://sim.example:443"), true},
		"the port of http":                      {twilio("http://sim.example:80"), twilio("http://sim.example"), true},
		"http at the port of https":             {twilio("http://sim.example"), twilio("http://sim.example:443"), false},
		"without TLS":                           {twilio("https://sim.example"), twilio("http://sim.example"), false},
		"Twilio itself":                         {twilio(""), twilio("https://api.twilio.com"), true},
		"a host that begins like Twilio's":      {twilio(""), twilio("https://api.twilio.com.example"), false},
	} {
		require.Equal(t, c.same, same(c.a, c.b), name)
	}
}

// TestSecretsOfFormerVersions: those that were sealed without a destination ask for
// themselves too, and are bound by the first change.
func TestSecretsOfFormerVersions(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	for i := range kinds().Len() {
		kind := kinds().Get(i)
		former := func() *messaging.Channel {
			c := channelOf(t, s, kind)
			for _, fd := range secrets.Fields(kind.Message()) {
				name := string(fd.Name())
				sealed, err := s.vault.Seal(vault.AAD{Account: c.AccountID, Resource: c.ID, Field: name, Version: 1}, []byte("former "+name))
				require.NoError(t, err)
				c.Sealed[name] = sealed
			}
			require.True(t, c.Unbound(s.vault))
			return c
		}
		_, err := former().Settings(s.vault)
		require.ErrorIs(t, err, vault.ErrUnbound, "nothing opens them before they are bound")
		for j := range kind.Message().Fields().Len() {
			fd := kind.Message().Fields().Get(j)
			c := former()
			err := s.changeCredentials(c, request(kind, 1, is(fd)), "credentials")
			if secrets.IsDestination(fd) {
				require.Equal(t, errorv1.Reason_REASON_SECRET_REQUIRED, apierr.From(err).Reason, fd.FullName())
				continue
			}
			require.NoError(t, err)
			require.False(t, c.Unbound(s.vault), fd.FullName())
			_, err = c.Settings(s.vault)
			require.NoError(t, err)
		}
	}
}

// TestCredentialsOfAnotherKind: a path or a message of another kind reaches nothing.
func TestCredentialsOfAnotherKind(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	for i := range kinds().Len() {
		for j := range kinds().Len() {
			if i == j {
				continue
			}
			mine, other := kinds().Get(i), kinds().Get(j)
			c := channelOf(t, s, mine)
			err := s.changeCredentials(c, request(other, 1, everything), "credentials")
			require.Equal(t, errorv1.Reason_REASON_VALIDATION_FAILED, apierr.From(err).Reason)
			err = s.changeCredentials(c, request(mine, 1, everything), "credentials."+string(other.Name())+".x")
			require.Equal(t, errorv1.Reason_REASON_VALIDATION_FAILED, apierr.From(err).Reason)
			_, err = c.Settings(s.vault)
			require.NoError(t, err)
		}
	}
	c := &messaging.Channel{}
	failed := errors.New("no")
	require.ErrorIs(t, c.ChangeCredentials(s.vault, time.Unix(0, 0), func(*messaging.Credentials) (map[string]string, error) { return nil, failed }), failed)
}
