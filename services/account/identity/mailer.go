package identity

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"time"

	"github.com/wneessen/go-mail"
)

// Dialer opens the mailer's connections; kit/egress is one.
type Dialer interface {
	DialContext(ctx context.Context, network, address string) (net.Conn, error)
}

// mailLimit is how long sending one mail may take.
const mailLimit = 20 * time.Second

// SMTPMailer sends mails through an SMTP server.
type SMTPMailer struct {
	host, user, password, from string
	port                       int
	tls                        bool // implicit TLS
	plain                      bool
	dialer                     Dialer
}

// NewSMTPMailer reads MAIL_URL: smtp://user:password@host:port?from=address uses
// STARTTLS, smtps:// implicit TLS, and ?plaintext=true neither.
func NewSMTPMailer(rawURL string, dialer Dialer) (*SMTPMailer, error) {
	u, err := url.Parse(rawURL)
	if err != nil || u.Hostname() == "" || (u.Scheme != "smtp" && u.Scheme != "smtps") {
		return nil, fmt.Errorf("MAIL_URL: expected smtp://user:password@host:port?from=address or smtps://…")
	}
	m := &SMTPMailer{host: u.Hostname(), port: 587, tls: u.Scheme == "smtps", plain: u.Query().Get("plaintext") == "true", dialer: dialer}
	if m.tls {
		m.port = 465
	}
	if p := u.Port(); p != "" {
		if m.port, err = strconv.Atoi(p); err != nil {
			return nil, fmt.Errorf("MAIL_URL: port %q is not a number", p)
		}
	}
	if u.User != nil {
		m.user = u.User.Username()
		m.password, _ = u.User.Password()
	}
	if m.from = u.Query().Get("from"); m.from == "" {
		m.from = m.user
	}
	if m.from == "" {
		return nil, fmt.Errorf("MAIL_URL: needs ?from=address")
	}
	return m, nil
}

// Send implements Mailer.
func (m *SMTPMailer) Send(ctx context.Context, to, subject, text string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), mailLimit)
	defer cancel()
	msg := mail.NewMsg()
	if err := msg.From(m.from); err != nil {
		return fmt.Errorf("mail: from: %w", err)
	}
	if err := msg.To(to); err != nil {
		return fmt.Errorf("mail: to: %w", err)
	}
	msg.Subject(subject)
	msg.SetBodyString(mail.TypeTextPlain, text)
	client, err := mail.NewClient(m.host, m.options()...)
	if err != nil {
		return fmt.Errorf("mail: %w", err)
	}
	if err := client.DialAndSendWithContext(ctx, msg); err != nil {
		return fmt.Errorf("mail: %w", err)
	}
	return nil
}

func (m *SMTPMailer) options() []mail.Option {
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := m.dialer.DialContext(ctx, network, address)
		if err != nil || !m.tls {
			return conn, err
		}
		return tls.Client(conn, &tls.Config{ServerName: m.host, MinVersion: tls.VersionTLS12}), nil
	}
	policy, auth := mail.TLSMandatory, mail.SMTPAuthAutoDiscover
	if m.plain || m.tls {
		// The connection is TLS already, which the library does not see, or may be
		// plain: it must neither upgrade it nor refuse the login on it.
		policy, auth = mail.NoTLS, mail.SMTPAuthPlainNoEnc
	}
	opts := []mail.Option{mail.WithPort(m.port), mail.WithDialContextFunc(dial), mail.WithTLSPolicy(policy)}
	if m.user != "" {
		opts = append(opts, mail.WithSMTPAuth(auth), mail.WithUsername(m.user), mail.WithPassword(m.password))
	}
	return opts
}
