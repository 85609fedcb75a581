// Package sim is a provider for development and tests: an SMTP server that takes
// messages for anybody, an HTTP face that speaks as Twilio does, a journal that
// proves what they took, and a mailbox page that shows it.
//
// Every accepted message is on disk (fsync) before it is answered, so a test that
// kills everything else can still count what was really delivered. The local part
// of a recipient may ask for trouble ("nouser-bob@example.test"; see Script), and so
// may a phone number (see Phones); the control endpoint changes the behaviour of
// the whole server.
//
// The server is strict where real ones are lenient: a bare LF, a line over 998
// octets or NUL in the content is refused with 554 5.6.0.
package sim

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/turumba/turumba/kit/clock"
)

// TLSMode says whether the SMTP port speaks TLS.
type TLSMode string

// TLS modes.
const (
	// TLSNone offers no TLS.
	TLSNone TLSMode = "none"
	// TLSStartTLS offers STARTTLS but takes unencrypted mail too.
	TLSStartTLS TLSMode = "starttls"
	// TLSImplicit speaks TLS from the first byte.
	TLSImplicit TLSMode = "implicit"
)

const (
	defaultMaxMessage = 25 << 20
	defaultKeepFirst  = 100
	defaultKeepRecent = 200
	shutdownGrace     = 2 * time.Second
)

// Config configures a Server.
type Config struct {
	// SMTPAddr, HTTPAddr and APIAddr are the addresses to listen on, for mail, for the
	// mailbox page and as an HTTP provider; empty means a free loopback port.
	SMTPAddr, HTTPAddr, APIAddr string
	// Journal is the path of the journal; it is created or continued.
	Journal string
	// TLS is how the SMTP port is protected; empty means TLSNone. The certificate is
	// made at start, for localhost, the loopback addresses and Hostname.
	TLS TLSMode
	// Hostname is the server's name; empty means "sim.localhost".
	Hostname string
	// Username and Password are the login; an empty Username means that no login is
	// needed.
	Username, Password string
	// MaxMessageBytes is the largest message taken; 0 means 25 MiB.
	MaxMessageBytes int
	// KeepFirst and KeepRecent are how many of the first and of the latest messages
	// are kept in memory for the mailbox; 0 means 100 and 200.
	KeepFirst, KeepRecent int
	// Clock is the time of day.
	Clock clock.Clock
	// Logger gets ids and counts, never content.
	Logger *slog.Logger
}

// Server is the simulator. Make one with New, then call Run.
type Server struct {
	cfg     Config
	smtp    net.Listener
	http    net.Listener
	api     net.Listener
	tls     *tls.Config
	roots   *x509.CertPool
	certPEM []byte
	journal *journal
	mailbox *mailbox
	control *control
	conns   connSet
}

// New opens the journal and the ports, so that the addresses are known before
// Run. The caller must call Run or Close.
func New(cfg Config) (*Server, error) {
	cfg = cfg.withDefaults()
	s := &Server{cfg: cfg, control: newControl(), mailbox: newMailbox(cfg.KeepFirst, cfg.KeepRecent)}
	if cfg.TLS != TLSNone {
		if err := s.makeCertificate(); err != nil {
			return nil, err
		}
	}
	var err error
	if s.journal, err = openJournal(cfg.Journal); err != nil {
		return nil, err
	}
	if s.smtp, err = net.Listen("tcp", cfg.SMTPAddr); err != nil {
		_ = s.Close()
		return nil, fmt.Errorf("listen for SMTP: %w", err)
	}
	if s.http, err = net.Listen("tcp", cfg.HTTPAddr); err != nil {
		_ = s.Close()
		return nil, fmt.Errorf("listen for the mailbox: %w", err)
	}
	if s.api, err = net.Listen("tcp", cfg.APIAddr); err != nil {
		_ = s.Close()
		return nil, fmt.Errorf("listen as an HTTP provider: %w", err)
	}
	return s, nil
}

func (c Config) withDefaults() Config {
	orDefault(&c.SMTPAddr, "127.0.0.1:0")
	orDefault(&c.HTTPAddr, "127.0.0.1:0")
	orDefault(&c.APIAddr, "127.0.0.1:0")
	orDefault(&c.TLS, TLSNone)
	orDefault(&c.Hostname, "sim.localhost")
	orDefault(&c.MaxMessageBytes, defaultMaxMessage)
	orDefault(&c.KeepFirst, defaultKeepFirst)
	orDefault(&c.KeepRecent, defaultKeepRecent)
	if c.Clock == nil {
		c.Clock = clock.System()
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

func orDefault[T comparable](v *T, standard T) {
	var zero T
	if *v == zero {
		*v = standard
	}
}

// SMTPAddr returns the host:port of the SMTP server.
func (s *Server) SMTPAddr() string { return s.smtp.Addr().String() }

// URL returns the address of the mailbox page, without a trailing slash.
func (s *Server) URL() string { return "http://" + s.http.Addr().String() }

// APIURL returns the base URL of the HTTP providers' faces, without a trailing slash.
func (s *Server) APIURL() string { return "http://" + s.api.Addr().String() }

// Roots returns the pool that trusts the server's certificate; nil without TLS.
func (s *Server) Roots() *x509.CertPool { return s.roots }

// CertPEM returns the server's certificate; nil without TLS.
func (s *Server) CertPEM() []byte { return s.certPEM }

// Control returns the behaviour that the control endpoint changes.
func (s *Server) Control() Control { return s.control.get() }

// SetControl replaces the behaviour.
func (s *Server) SetControl(c Control) error { return s.control.set(c) }

// Run serves until ctx ends, then closes everything. It returns nil after a
// clean stop.
func (s *Server) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	web, api := s.httpServer(ctx, s.handler()), s.httpServer(ctx, s.apiHandler())
	group.Go(func() error { return s.journal.run() })
	group.Go(func() error { return s.serveSMTP(ctx) })
	group.Go(func() error { return ignoreClosed(web.Serve(s.http)) })
	group.Go(func() error { return ignoreClosed(api.Serve(s.api)) })
	group.Go(func() error {
		<-ctx.Done()
		return s.stop(web, api)
	})
	return group.Wait()
}

// httpServer ends its requests with ctx.
func (s *Server) httpServer(ctx context.Context, handler http.Handler) *http.Server {
	return &http.Server{
		Handler: handler, ReadHeaderTimeout: 5 * time.Second, ErrorLog: slog.NewLogLogger(s.cfg.Logger.Handler(), slog.LevelWarn),
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
}

// stop ends the sessions first and the journal last, so that no session waits
// for a journal that is gone.
func (s *Server) stop(servers ...*http.Server) error {
	grace, cancel := context.WithTimeout(context.Background(), shutdownGrace)
	defer cancel()
	_ = s.smtp.Close()
	s.conns.closeAll()
	for _, server := range servers {
		if err := server.Shutdown(grace); err != nil {
			_ = server.Close()
		}
	}
	s.conns.wait()
	return s.journal.close()
}

// Close releases what New opened. Only for a Server that never ran.
func (s *Server) Close() error {
	var failures []error
	for _, l := range []net.Listener{s.smtp, s.http, s.api} {
		if l != nil {
			failures = append(failures, l.Close())
		}
	}
	return errors.Join(append(failures, s.journal.abandon())...)
}

func ignoreClosed(err error) error {
	if errors.Is(err, http.ErrServerClosed) || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
