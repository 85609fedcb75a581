// Package app runs the simulator as a program: it reads the configuration, says
// where it listens, and serves until it is told to stop.
package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/config"
	"github.com/turumba/turumba/kit/telemetry"
	"github.com/turumba/turumba/sim"
)

// Config is the simulator's configuration.
type Config struct {
	SMTPAddr   string        `env:"SIM_SMTP_ADDR" envDefault:"127.0.0.1:0" flag:"smtp-addr" help:"host:port of the SMTP server; port 0 picks a free one"`
	HTTPAddr   string        `env:"SIM_HTTP_ADDR" envDefault:"127.0.0.1:0" flag:"http-addr" help:"host:port of the mailbox page and the control endpoint"`
	APIAddr    string        `env:"SIM_API_ADDR" envDefault:"127.0.0.1:0" flag:"api-addr" help:"host:port of the HTTP providers' faces (Twilio)"`
	Journal    string        `env:"SIM_JOURNAL,required" flag:"journal" help:"file that records every accepted message"`
	TLS        string        `env:"SIM_TLS" envDefault:"none" flag:"tls" help:"none, starttls or implicit"`
	Username   string        `env:"SIM_USERNAME" flag:"username" help:"login that is required; empty for none"`
	Password   config.Secret `env:"SIM_PASSWORD" help:"password of the login; only from the environment"`
	KeepFirst  int           `env:"SIM_KEEP_FIRST" envDefault:"100" flag:"keep-first" help:"how many of the first messages the mailbox keeps"`
	KeepRecent int           `env:"SIM_KEEP_RECENT" envDefault:"200" flag:"keep-recent" help:"how many of the latest messages the mailbox keeps"`
	ReadyFile  string        `env:"SIM_READY_FILE" flag:"ready-file" help:"file that receives the addresses as JSON once the ports are open"`
	CertFile   string        `env:"SIM_CERT_FILE" flag:"cert-file" help:"file that receives the certificate when TLS is on"`
}

// Validate reports what Load cannot see by the types.
func (c Config) Validate() error {
	var problems []error
	switch sim.TLSMode(c.TLS) {
	case sim.TLSNone, sim.TLSStartTLS, sim.TLSImplicit:
	default:
		problems = append(problems, errors.New("SIM_TLS must be none, starttls or implicit"))
	}
	if c.KeepFirst < 0 || c.KeepRecent < 0 {
		problems = append(problems, errors.New("SIM_KEEP_FIRST and SIM_KEEP_RECENT must not be negative"))
	}
	return errors.Join(problems...)
}

// Ready is the line printed on standard output, and written to the ready file,
// once the ports are open.
type Ready struct {
	// SMTP is host:port, Mailbox a URL.
	SMTP    string `json:"smtp"`
	Mailbox string `json:"mailbox"`
	// API is the base URL of the HTTP providers' faces.
	API string `json:"api"`
	// Journal is the absolute path of the journal.
	Journal string `json:"journal"`
	// PID is the process.
	PID int `json:"pid"`
}

// Main is the whole program: it returns the exit code. A closed terminal or a
// dead starter does not end it; SIGTERM and SIGINT do, cleanly.
func Main(ctx context.Context, environ, args []string, stdout, stderr io.Writer) int {
	signal.Ignore(syscall.SIGHUP, syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	cfg, err := config.Load[Config](environ, args...)
	if errors.Is(err, config.ErrHelp) {
		fmt.Fprint(stdout, config.Usage[Config]())
		return 0
	}
	if err == nil {
		err = Run(ctx, cfg, stdout, stderr)
	}
	if err != nil {
		fmt.Fprintln(stderr, err)
		return 1
	}
	return 0
}

// Run serves until ctx ends. The line on stdout is a Ready.
func Run(ctx context.Context, cfg Config, stdout, stderr io.Writer) error {
	journal, err := filepath.Abs(cfg.Journal)
	if err != nil {
		return fmt.Errorf("find journal: %w", err)
	}
	server, err := sim.New(sim.Config{
		SMTPAddr: cfg.SMTPAddr, HTTPAddr: cfg.HTTPAddr, APIAddr: cfg.APIAddr, Journal: journal, TLS: sim.TLSMode(cfg.TLS),
		Username: cfg.Username, Password: cfg.Password.Reveal(),
		KeepFirst: cfg.KeepFirst, KeepRecent: cfg.KeepRecent,
		Clock: clock.System(), Logger: telemetry.NewLogger(stderr, nil),
	})
	if err != nil {
		return err
	}
	ready := Ready{SMTP: server.SMTPAddr(), Mailbox: server.URL(), API: server.APIURL(), Journal: journal, PID: os.Getpid()}
	if err := announce(cfg, ready, server.CertPEM(), stdout); err != nil {
		return errors.Join(err, server.Close())
	}
	return server.Run(ctx)
}

// announce writes the certificate first, so that whoever sees the ready line
// finds it.
func announce(cfg Config, ready Ready, cert []byte, stdout io.Writer) error {
	line, err := json.Marshal(ready)
	if err != nil {
		return fmt.Errorf("announce: %w", err)
	}
	line = append(line, '\n')
	if cfg.CertFile != "" && cert != nil {
		if err := replaceFile(cfg.CertFile, cert); err != nil {
			return err
		}
	}
	if cfg.ReadyFile != "" {
		if err := replaceFile(cfg.ReadyFile, line); err != nil {
			return err
		}
	}
	// A starter that is already gone is no reason to stop.
	_, _ = stdout.Write(line)
	return nil
}

// replaceFile writes a file so that a reader sees all of it or the old one.
func replaceFile(path string, data []byte) error {
	temporary := path + ".new"
	if err := os.WriteFile(temporary, data, 0o600); err != nil {
		return fmt.Errorf("write %s: %w", filepath.Base(path), err)
	}
	if err := os.Rename(temporary, path); err != nil {
		return fmt.Errorf("write %s: %w", filepath.Base(path), err)
	}
	return nil
}
