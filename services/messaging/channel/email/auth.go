package email

import (
	"context"
	"encoding/base64"

	"github.com/turumba/turumba/services/messaging/channel"
)

// login authenticates when the channel has a user name. It runs after the
// connection was found to be encrypted, or plaintext to be allowed.
func (w *wire) login(ctx context.Context) *channel.Result {
	user, password := w.s.set.Username, w.s.set.Password.Reveal()
	switch {
	case user == "":
		return nil
	case w.ext.plain:
		return w.loginWith(ctx, "AUTH PLAIN "+encode("\x00"+user+"\x00"+password))
	case w.ext.login:
		return w.loginWith(ctx, "AUTH LOGIN", encode(user), encode(password))
	default:
		res := fail(channel.ClassConfig, codeNoAuth)
		return &res
	}
}

// loginWith writes the lines of a login one by one: each but the last is answered
// by 334, the last by 235.
func (w *wire) loginWith(ctx context.Context, lines ...string) *channel.Result {
	// The buffer of the connection must not keep the password.
	defer func() { clear(w.commands[:cap(w.commands)]) }()
	for i, line := range lines {
		code := 334
		if i == len(lines)-1 {
			code = 235
		}
		if failed := w.command(ctx, stageAuth, code, line); failed != nil {
			return failed
		}
	}
	return nil
}

func encode(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
