package single

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/sim"
	simapp "github.com/turumba/turumba/sim/app"
)

// SimulatorCommand is the hidden command of this program that runs the
// simulator in a process of its own.
const SimulatorCommand = "simulator"

const (
	simStartLimit = 10 * time.Second
	simStopLimit  = 3 * time.Second
	simCallLimit  = 3 * time.Second
)

// Simulator is the simulated provider of mail and text messages, a process of its own that outlives a
// kill of this one; the next start finds it again.
type Simulator struct {
	simapp.Ready
	http  *http.Client
	clock clock.Clock
	// ended is closed once the process that this one started has ended; nil for one
	// that was found.
	ended chan struct{}
}

// StartSimulator finds the simulator of the folder or starts it, on its former
// ports where they are free, so that channels keep working.
func StartSimulator(ctx context.Context, dir string, c clock.Clock) (*Simulator, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the simulator's folder: %w", err)
	}
	s := &Simulator{http: &http.Client{Timeout: simCallLimit}, clock: c}
	file := filepath.Join(dir, "ready.json")
	raw, err := os.ReadFile(file)
	if err == nil && json.Unmarshal(raw, &s.Ready) == nil && s.answers(ctx) {
		return s, nil
	}
	former := s.Ready
	if former.SMTP != "" {
		if s.launch(ctx, dir, file, former.SMTP, hostOf(former.Mailbox), hostOf(former.API)) == nil {
			return s, nil
		}
	}
	return s, s.launch(ctx, dir, file, freePort, freePort, freePort)
}

// freePort lets the simulator choose.
const freePort = "127.0.0.1:0"

// hostOf is the host and port of a URL; a free port where there is none.
func hostOf(rawURL string) string {
	u, err := url.Parse(rawURL)
	if err != nil || u.Host == "" {
		return freePort
	}
	return u.Host
}

func (s *Simulator) launch(ctx context.Context, dir, ready, smtp, mailbox, api string) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	log, err := os.OpenFile(filepath.Join(dir, "simulator.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open the simulator's log: %w", err)
	}
	defer func() { _ = log.Close() }() // the child has its own handle
	// It must outlive this context and the terminal's Ctrl-C.
	cmd := exec.CommandContext(context.WithoutCancel(ctx), self, SimulatorCommand, "--journal", filepath.Join(dir, "journal"),
		"--ready-file", ready, "--smtp-addr", smtp, "--http-addr", mailbox, "--api-addr", api)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Stderr = log
	out, err := cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("start the simulator: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the simulator: %w", err)
	}
	ended := make(chan struct{})
	defer func() { // the output is read first
		s.ended = ended
		go func() {
			_ = cmd.Wait() // whenever it ends, and however
			close(ended)
		}()
	}()
	return s.await(out, filepath.Join(dir, "simulator.log"))
}

// await reads the line in which the simulator says where it listens.
func (s *Simulator) await(out io.Reader, log string) error {
	line := make(chan error, 1)
	go func() {
		raw, err := bufio.NewReader(out).ReadBytes('\n')
		if err == nil {
			err = json.Unmarshal(raw, &s.Ready)
		}
		line <- err
	}()
	t := s.clock.NewTimer(simStartLimit)
	defer t.Stop()
	select {
	case err := <-line:
		if err != nil {
			return fmt.Errorf("the simulator did not start; see %s", log)
		}
		return nil
	case <-t.C():
		return fmt.Errorf("the simulator did not start within %s; see %s", simStartLimit, log)
	}
}

// get reads JSON from the simulator's mailbox.
func (s *Simulator) get(ctx context.Context, path string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.Mailbox+path, nil)
	if err != nil {
		return err
	}
	resp, err := s.http.Do(req)
	if err != nil {
		return fmt.Errorf("ask the simulator: %w", err)
	}
	defer func() { _ = resp.Body.Close() }() // it was only read
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("ask the simulator: %s", resp.Status)
	}
	return json.NewDecoder(resp.Body).Decode(into)
}

// SetFaults lets the simulator make these from now on, and no others.
func (s *Simulator) SetFaults(ctx context.Context, faults ...sim.Fault) error {
	body, err := json.Marshal(map[string]any{"faults": slices.Concat([]sim.Fault{}, faults)})
	if err != nil {
		return fmt.Errorf("change the simulator: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.Mailbox+"/control", bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := s.http.Do(req)
	if err != nil {
		return fmt.Errorf("change the simulator: %w", err)
	}
	defer func() { _ = resp.Body.Close() }() // its answer is what was sent
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("change the simulator: %s", resp.Status)
	}
	return nil
}

// answers reports whether the simulator that is on record lives.
func (s *Simulator) answers(ctx context.Context) bool {
	var status sim.Status
	return s.get(ctx, "/api/status", &status) == nil && status.Journal == s.Journal && s.API != "" && status.API == s.API
}

// Messages returns the latest mails to an address, with their bodies; an empty
// address means any.
func (s *Simulator) Messages(ctx context.Context, to string, limit int) ([]sim.Message, error) {
	q := url.Values{"limit": {strconv.Itoa(limit)}}
	if to != "" {
		q.Set("to", to)
	}
	var list struct {
		Messages []sim.Message `json:"messages"`
	}
	if err := s.get(ctx, "/api/messages?"+q.Encode(), &list); err != nil {
		return nil, err
	}
	for i, m := range list.Messages {
		if err := s.get(ctx, fmt.Sprintf("/api/messages/%d", m.N), &list.Messages[i]); err != nil {
			return nil, err
		}
	}
	return list.Messages, nil
}

var sixDigits = regexp.MustCompile(`\b[0-9]{6}\b`)

// Code waits for the verification code that was mailed to an address.
func (s *Simulator) Code(ctx context.Context, to string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, simStartLimit)
	defer cancel()
	for {
		mails, err := s.Messages(ctx, to, 1)
		if err != nil {
			return "", err
		}
		for _, m := range mails {
			if code := sixDigits.FindString(m.Text); code != "" {
				return code, nil
			}
		}
		if err := clock.Sleep(ctx, s.clock, 50*time.Millisecond); err != nil {
			return "", errors.New("no verification code arrived in the simulator's mailbox")
		}
	}
}

// HostPort is where the simulator's SMTP server listens.
func (s *Simulator) HostPort() (host string, port int) {
	host, text, err := net.SplitHostPort(s.SMTP)
	if err != nil {
		return s.SMTP, 0
	}
	port, _ = strconv.Atoi(text) // it listens there
	return host, port
}

// apiPort is where the faces of HTTP providers listen.
func (s *Simulator) apiPort() string {
	_, port, _ := net.SplitHostPort(hostOf(s.API)) // hostOf has both
	return port
}

// Stop ends the simulator and waits until it does not answer any more.
func (s *Simulator) Stop(ctx context.Context) {
	p, err := os.FindProcess(s.PID)
	if err != nil || p.Signal(syscall.SIGTERM) != nil {
		return // it is gone
	}
	ctx, cancel := context.WithTimeout(ctx, simStopLimit)
	defer cancel()
	if s.ended != nil {
		select {
		case <-s.ended:
		case <-ctx.Done():
		}
		return
	}
	for s.answers(ctx) && clock.Sleep(ctx, s.clock, 20*time.Millisecond) == nil {
	}
}
