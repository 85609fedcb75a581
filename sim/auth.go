package sim

import (
	"bytes"
	"crypto/subtle"
	"encoding/base64"
	"strings"
)

// auth runs AUTH PLAIN or AUTH LOGIN.
func (c *session) auth(arg string) error {
	mechanism, initial, _ := strings.Cut(arg, " ")
	switch {
	case c.server.cfg.Username == "" || !c.greeted:
		c.reply("503 5.5.1 login not offered")
		return nil
	case c.loggedIn:
		c.reply("503 5.5.1 already logged in")
		return nil
	}
	var user, password []byte
	var err error
	switch strings.ToUpper(mechanism) {
	case "PLAIN":
		user, password, err = c.plain(initial)
	case "LOGIN":
		if user, err = c.ask(initial, "VXNlcm5hbWU6"); err == nil {
			password, err = c.ask("", "UGFzc3dvcmQ6")
		}
	default:
		c.reply("504 5.5.4 unknown mechanism")
		return nil
	}
	if err == nil {
		c.judgeLogin(user, password)
	}
	return err
}

func (c *session) plain(initial string) (user, password []byte, err error) {
	answer, err := c.ask(initial, "")
	if err != nil {
		return nil, nil, err
	}
	parts := bytes.SplitN(answer, []byte{0}, 3)
	if len(parts) != 3 {
		return nil, nil, nil
	}
	return parts[1], parts[2], nil
}

// ask sends a challenge unless the answer is already there. An answer that is
// not base64 counts as empty and so fails the login.
func (c *session) ask(given, challenge string) ([]byte, error) {
	if given == "" {
		c.reply("334 ", challenge)
		line, err := c.readCommand()
		if err != nil {
			return nil, err
		}
		given = string(line)
	}
	answer, err := base64.StdEncoding.DecodeString(given)
	if err != nil {
		return nil, nil
	}
	return answer, nil
}

func (c *session) judgeLogin(user, password []byte) {
	cfg := &c.server.cfg
	right := subtle.ConstantTimeCompare(user, []byte(cfg.Username)) & subtle.ConstantTimeCompare(password, []byte(cfg.Password))
	if right != 1 || c.server.control.get().RefuseLogin {
		c.reply("535 5.7.8 authentication credentials invalid")
		return
	}
	c.loggedIn = true
	c.reply("235 2.7.0 welcome")
}
