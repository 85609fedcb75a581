package security_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"github.com/turumba/turumba/cmd/turumba/single"
	"github.com/turumba/turumba/e2e/world"
	"github.com/turumba/turumba/kit/pg/pgtest"
	simapp "github.com/turumba/turumba/sim/app"
)

// TestMain is also the simulator, which the mesh starts as a process of its own.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == single.SimulatorCommand {
		os.Exit(simapp.Main(context.Background(), os.Environ(), os.Args[2:], os.Stdout, os.Stderr))
	}
	goleak.VerifyTestMain(m, append(pgtest.Goleak(), goleak.Cleanup(func(code int) {
		report.print(os.Stdout)
		os.Exit(code)
	}))...)
}

// full asks for every repetition; `make test` runs the quick form, which has the
// same cases.
var full = os.Getenv("SECURITY") == "full"

// TestSecurity runs the suites that only ask the mesh, one after the other, on
// one mesh.
func TestSecurity(t *testing.T) {
	t.Parallel()
	second := newSecondIssuer(t)
	w := world.New(t, second.settings(t)...)
	prepare(t, w)
	t.Run("tenant matrix", func(t *testing.T) { tenantMatrix(t, w) })
	t.Run("lists", func(t *testing.T) { tenantLists(t, w) })
	t.Run("operators as data", func(t *testing.T) { operatorsAreData(t, w) })
	t.Run("uniqueness", func(t *testing.T) { uniqueness(t, w) })
	t.Run("mass assignment", func(t *testing.T) { massAssignment(t, w) })
	t.Run("roles", func(t *testing.T) { roleMatrix(t, w) })
	t.Run("tokens", func(t *testing.T) { tokenAttacks(t, w) })
	t.Run("issuers", func(t *testing.T) { issuerAttacks(t, w, second) })
	t.Run("spoofing", func(t *testing.T) { spoofing(t, w) })
	t.Run("logins", func(t *testing.T) { logins(t, w) })
	t.Run("registrations", func(t *testing.T) { registrations(t, w) })
	t.Run("acting for a person", func(t *testing.T) { actingForAPerson(t, w) })
	t.Run("consent", func(t *testing.T) { consent(t, w) })
	t.Run("revocation", func(t *testing.T) { revocation(t, w) })
	t.Run("quotas", func(t *testing.T) { quotas(t, w) })
	t.Run("fixtures", func(t *testing.T) { fixturesHold(t, w) })
}

// suite counts the cases of one suite for the report.
type suite struct {
	name          string
	cases, passed atomic.Int64
	// coverage says what of the contract the suite reached.
	coverage string
}

// check counts a case and fails the test when it is not good.
func (s *suite) check(t *testing.T, ok bool, format string, args ...any) {
	t.Helper()
	s.cases.Add(1)
	if ok {
		s.passed.Add(1)
		return
	}
	t.Errorf(format, args...)
}

// reports is one line per suite.
type reports struct {
	mu     sync.Mutex
	suites []*suite
}

var report reports

func (r *reports) suite(name string) *suite {
	s := &suite{name: name}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.suites = append(r.suites, s)
	return s
}

func (r *reports) print(out io.Writer) {
	for _, s := range r.suites {
		_, _ = fmt.Fprintf(out, "security: %-24s %7d cases, %7d passed  %s\n", s.name, s.cases.Load(), s.passed.Load(), s.coverage)
	}
}
