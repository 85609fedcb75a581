package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/turumba/turumba/cmd/turumba/demo"
	"github.com/turumba/turumba/cmd/turumba/single"
	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/process"
	"github.com/turumba/turumba/kit/telemetry"
	"github.com/turumba/turumba/sim"
)

// demoConfig is what `demo` takes besides the settings of `up`.
type demoConfig struct {
	single.Config
	Contacts    int  `env:"DEMO_CONTACTS" envDefault:"1000" flag:"contacts" help:"how many people get the message, 1 to 1000000"`
	BodyBytes   int  `env:"DEMO_BODY_BYTES" envDefault:"0" flag:"body-bytes" help:"size of each rendered text; 0: a short one; at most 60000"`
	Connections int  `env:"DEMO_CONNECTIONS" envDefault:"32" flag:"connections" help:"SMTP connections of the channel, 1 to 64"`
	Tour        bool `env:"DEMO_TOUR" flag:"tour" help:"show campaigns, a code in their midst, a batch, a dry run, a cancel and a resend, each held against the provider's journal; 50 to 50000 contacts"`
	Exit        bool `env:"DEMO_EXIT" flag:"exit" help:"end after the send instead of serving on"`
	JSON        bool `env:"DEMO_JSON" flag:"json" help:"make the last line one JSON object"`
}

// Validate reports what Load cannot see by the types.
func (c demoConfig) Validate() error {
	var problems []error
	check := func(ok bool, text string) {
		if !ok {
			problems = append(problems, errors.New(text))
		}
	}
	check(c.Contacts >= 1 && c.Contacts <= 1_000_000, "--contacts must be between 1 and 1000000")
	check(!c.Tour || c.Contacts >= demo.TourMin && c.Contacts <= demo.TourMax, fmt.Sprintf("--contacts must be between %d and %d with --tour", demo.TourMin, demo.TourMax))
	check(c.BodyBytes >= 0 && c.BodyBytes <= 60_000, "--body-bytes must be between 0 and 60000")
	check(c.Connections >= 1 && c.Connections <= 64, "--connections must be between 1 and 64")
	return errors.Join(problems...)
}

func runDemo(ctx context.Context, environ, args []string, stdout, stderr io.Writer) int {
	return process.Main(ctx, environ, args, stdout, stderr, func(ctx context.Context, cfg demoConfig) error {
		remove, err := temporaryDataDir(&cfg)
		if err != nil {
			return err
		}
		defer remove()
		return playDemo(ctx, cfg, stdout, stderr)
	})
}

// temporaryDataDir is the demo's folder unless one was given.
func temporaryDataDir(cfg *demoConfig) (remove func(), err error) {
	if cfg.DataDir != "" {
		return func() {}, nil
	}
	if cfg.DataDir, err = os.MkdirTemp("", "turumba-demo-"); err != nil {
		return nil, fmt.Errorf("make a temporary data folder: %w (set TMPDIR or TURUMBA_DATA_DIR)", err)
	}
	return func() { _ = os.RemoveAll(cfg.DataDir) }, nil // a leftover in the temporary folder harms nobody
}

func playDemo(ctx context.Context, cfg demoConfig, stdout, stderr io.Writer) error {
	story := stdout
	if cfg.JSON {
		story = stderr
	}
	if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
		return fmt.Errorf("the data folder cannot be written: %w (set TURUMBA_DATA_DIR)", err)
	}
	logFile, err := os.OpenFile(filepath.Join(cfg.DataDir, "turumba.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("the data folder cannot be written: %w (set TURUMBA_DATA_DIR)", err)
	}
	defer func() { _ = logFile.Close() }() // every line was written already
	in, err := single.Start(ctx, cfg.Config, telemetry.NewLogger(logFile, cfg.LogLevel), true)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return in.Run(ctx) })
	play := tell
	if cfg.Tour {
		play = tellTour
	}
	g.Go(func() error {
		if err := play(ctx, cfg, in, story, stdout); err != nil || cfg.Exit {
			stop()
			return err
		}
		printAddresses(story, in, cfg.DataDir)
		return nil
	})
	return g.Wait()
}

// tell plays the demo and prints what came of it.
func tell(ctx context.Context, cfg demoConfig, in *single.Instance, story, stdout io.Writer) error {
	res, err := demo.Run(ctx, cfg.demo(in, story))
	if err != nil {
		return err
	}
	journal, err := sim.ReadJournal(in.Simulator.Journal)
	if err != nil {
		return err
	}
	report := newReport(res, journal, in)
	if err := report.print(ctx, story, res, in); err != nil {
		return err
	}
	if cfg.JSON {
		return json.NewEncoder(stdout).Encode(report)
	}
	return nil
}

// demo is what a demo of the instance needs, told to story.
func (c demoConfig) demo(in *single.Instance, story io.Writer) demo.Config {
	host, port := in.Simulator.HostPort()
	return demo.Config{
		BaseURL: in.URL, SMTPHost: host, SMTPPort: port, Contacts: c.Contacts, BodyBytes: c.BodyBytes, Connections: c.Connections,
		Code: in.Simulator.Code, Clock: clock.System(), Out: story, Live: isTerminal(story),
	}
}

// tellTour plays the tour. Its figures are printed whether they agree or not; it is an
// error if they do not.
func tellTour(ctx context.Context, cfg demoConfig, in *single.Instance, story, stdout io.Writer) error {
	report, err := demo.Tour(ctx, demo.TourConfig{
		Config: cfg.demo(in, story), TwilioURL: in.Simulator.API, Journal: in.Simulator.Journal, SetFaults: in.Simulator.SetFaults,
	})
	if err != nil {
		return err
	}
	if cfg.JSON {
		if err := json.NewEncoder(stdout).Encode(report); err != nil {
			return err
		}
	}
	return report.Err()
}

// report is the last line of `demo --json`.
type report struct {
	Recipients         int     `json:"recipients"`
	Sent               int     `json:"sent"`
	Failed             int     `json:"failed"`
	Skipped            int     `json:"skipped"`
	Unknown            int     `json:"unknown"`
	Seconds            float64 `json:"seconds"`
	RatePerSecond      float64 `json:"rate_per_second"`
	ReceivedDistinct   int64   `json:"received_distinct"`
	ReceivedDuplicates int64   `json:"received_duplicates"`
	RSSPeakMiB         int     `json:"rss_peak_mib"`
	PostgresMiB        int     `json:"postgres_pss_mib"`
}

// newReport counts what the simulator received for the send; the verification
// mail to the owner is not one of them.
func newReport(res demo.Result, journal sim.Summary, in *single.Instance) report {
	r := report{
		Recipients: res.Recipients, Sent: res.Sent, Failed: res.Failed, Skipped: res.Skipped, Unknown: res.Unknown, Seconds: res.Seconds,
		ReceivedDistinct: journal.Distinct - 1, ReceivedDuplicates: journal.Duplicates, RSSPeakMiB: single.PeakMiB(), PostgresMiB: in.PostgresMiB(),
	}
	if res.Seconds > 0 {
		r.RatePerSecond = float64(res.Sent) / res.Seconds
	}
	return r
}

func (r report) print(ctx context.Context, w io.Writer, res demo.Result, in *single.Instance) error {
	fmt.Fprintf(w, "\n%s: %d recipients = %d sent + %d failed (%d unknown) + %d cancelled; %d skipped\n",
		res.Status, r.Recipients, r.Sent, r.Failed, r.Unknown, res.Cancelled, r.Skipped)
	fmt.Fprintf(w, "%.2f s, %.0f messages/s; the simulator received %d, %d twice; memory peak %d MiB, PostgreSQL %d MiB\n",
		r.Seconds, r.RatePerSecond, r.ReceivedDistinct, r.ReceivedDuplicates, r.RSSPeakMiB, r.PostgresMiB)
	mails, err := in.Simulator.Messages(ctx, "", 3)
	if err != nil {
		return err
	}
	fmt.Fprintln(w, "\nThree messages as the simulator received them:")
	for _, m := range mails {
		fmt.Fprintf(w, "\n  To: %s\n  Subject: %s\n  Message-ID: %s\n  %s\n", m.To, m.Subject, m.MessageID, firstLines(m.Text))
	}
	fmt.Fprintf(w, "\nlog in with %s / %s\n", res.Email, res.Password)
	return nil
}

// firstLines keeps a long text from filling the screen.
func firstLines(text string) string {
	const most = 240
	text = strings.TrimSpace(text)
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "…"
	}
	return strings.ReplaceAll(text, "\n", "\n  ")
}

// isTerminal reports whether a person is looking.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
