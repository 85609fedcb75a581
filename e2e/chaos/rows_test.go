package chaos_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/kit/failpoint"
)

// row is one fault. Adding one means a function and a line in a table.
type row struct {
	id, name string
	// from is the smallest run that has it.
	from scope
	// with is whether other rows may run meanwhile, on meshes of their own.
	with company
	// run makes the fault; what must hold afterwards for every row is checked by the
	// harness.
	run func(r *trial)
}

// scope is how much is run: a few rows that no busy machine disturbs, with all other
// tests; the quick ones, alone and small; or all, with the repetitions of the catalogue.
type scope int

const (
	smoke scope = iota
	quick
	full
)

// company is who may be on the machine while a row runs.
type company int

const (
	// beside are rows that wait for something most of the time, and whose limits a busy
	// machine does not pass.
	beside company = iota
	// alone are those whose figure is a rate, a latency or memory.
	alone
)

// rows are all of them, in the order in which they start.
func rows() []row {
	return slices.Concat(apiRows(), relayRows(), consumeRows(), fanoutRows(), dispatchRows(), providerRows(), silentRows(), slowRows(), meshRows(), streamRows(), restoreRows())
}

// trial is a row in the making, on one of the meshes.
type trial struct {
	*world
	t    *testing.T
	full bool
	rand *rand.Rand
	of   []*tenant
	note string // what the row did, for the report

	// then is checked when the mesh has come to rest, besides what is checked always.
	then func()
	// may is what the row's promise allows: messages of unknown outcome (Window), and
	// those that a channel sends again because it was told to (Dup). None by default.
	may figures
}

// times is how often a row repeats its fault: n in the full run, a tenth in the small
// one, and at least twice.
func (r *trial) times(n int) int {
	if r.full {
		return n
	}
	return min(n, max(n/10, 2))
}

// did says for the report what the row did.
func (r *trial) did(format string, a ...any) { r.note = fmt.Sprintf(format, a...) }

// play runs a row, lets the mesh come to rest and checks it.
func (r *trial) play(row row, sum func(figures)) {
	r.t.Helper()
	defer r.keep(row)
	for _, p := range r.programs() {
		p.t = r.t
	}
	r.watch.take()
	defer r.faults()
	began := r.now()
	row.run(r)
	r.settle()
	if r.then != nil {
		r.then()
	}
	f, problems := r.check()
	defer func() { sum(f) }() // also of a row that fails
	// A channel that sends again what may have arrived has asked for it.
	again := min(f.Dup, r.may.Dup)
	f.Dup, f.Window = f.Dup-again, f.Window+again
	r.t.Logf("%s %s: %s; %s (%.1f s)", row.id, row.name, r.note, &f, r.now().Sub(began).Seconds())
	require.Zero(r.t, f.Lost, "%v", problems)
	require.Zero(r.t, f.Dup, "%v", problems)
	require.LessOrEqual(r.t, f.Window, r.may.Window+r.may.Dup, "messages of unknown outcome, or sent again")
	require.Zero(r.t, f.Drift, "%v", problems)
	require.Zero(r.t, f.Illegal, "%v", problems)
	require.Zero(r.t, f.Stuck, "%v", problems)
	r.wipe()
}

func (r *trial) now() (now time.Time) {
	r.t.Helper()
	require.NoError(r.t, r.sql.QueryRow(r.t.Context(), "SELECT clock_timestamp()").Scan(&now))
	return now
}

// keep stores, of a row that failed, the logs, the journal and the tables, and makes
// the mesh fit for the next row.
func (r *trial) keep(row row) {
	if !r.t.Failed() {
		return
	}
	dir, err := os.MkdirTemp("", "chaos-"+row.id+"-")
	require.NoError(r.t, err)
	r.t.Logf("%s failed; logs, journal and tables are in %s", row.id, dir)
	for _, p := range r.programs() {
		require.NoError(r.t, os.WriteFile(filepath.Join(dir, filepath.Base(p.path)+".log"), []byte(p.log.String()), 0o600))
	}
	journal, err := os.ReadFile(r.simulator.Journal)
	require.NoError(r.t, err)
	require.NoError(r.t, os.WriteFile(filepath.Join(dir, "journal"), journal, 0o600))
	ctx := context.WithoutCancel(r.t.Context())
	for _, table := range []string{"messages", "message_attempts", "message_due", "group_messages", "fanout_jobs", "dispatch_chunks", "outbox_events", "channels", "chaos_history", "chaos_recoveries"} {
		text, err := exec.CommandContext(ctx, "psql", r.postgres.URL("turumba_messaging"), "-c", "COPY (SELECT * FROM "+table+") TO STDOUT CSV HEADER").CombinedOutput()
		if err != nil {
			r.t.Logf("%s is not kept: %v", table, err)
			continue
		}
		require.NoError(r.t, os.WriteFile(filepath.Join(dir, table+".csv"), text, 0o600))
	}
	for _, p := range r.proxies() {
		require.NoError(r.t, p.Pass())
	}
	for _, p := range r.programs() {
		p.kill()
		p.start()
	}
	r.accountConn.ResetConnectBackoff()
	r.messagingConn.ResetConnectBackoff()
	r.wipe()
}

const (
	// killed is the exit status of a program that died at a failpoint.
	killed = 137
	// soon is how long anything in a row may take; the machine may be busy.
	soon = time.Minute
	// blink is how often a condition is looked at.
	blink = 5 * time.Millisecond
)

// fp is the setting that kills at the n-th hit of a point.
func fp(point failpoint.Point, nth int) string { return fmt.Sprintf("FP=%s=exit@%d", point, nth) }

// killed runs the program with the action at the point until it has ended there.
func (r *trial) killed(p *program, point failpoint.Point, nth int) {
	r.t.Helper()
	p.launch(fp(point, nth))
	require.Equal(r.t, killed, p.dies(), "%s ends at %s: %s", filepath.Base(p.path), point, p.log.tail())
}

// eventually waits until the query answers true.
func (r *trial) eventually(what, sql string, args ...any) {
	r.t.Helper()
	require.Eventually(r.t, func() bool {
		var ok bool
		require.NoError(r.t, r.sql.QueryRow(r.t.Context(), sql, args...).Scan(&ok))
		return ok
	}, soon, blink, what)
}
