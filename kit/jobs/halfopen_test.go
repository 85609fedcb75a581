package jobs_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/jobs"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/pg/pgtest"
	"github.com/turumba/turumba/kit/telemetry"
)

// silent stands before PostgreSQL. Connections that are open when it freezes take bytes
// from then on and never answer; new ones work: what a failover or a frozen host leaves.
type silent struct {
	listener        net.Listener
	network, target string
	carrying        sync.WaitGroup

	mu    sync.Mutex
	conns []*pair
}

type pair struct {
	client, server net.Conn
	frozen         bool
}

func newSilent(t *testing.T, url string) (s *silent, through string) {
	t.Helper()
	cfg, err := pgx.ParseConfig(url)
	require.NoError(t, err)
	s = &silent{}
	s.network, s.target = pgconn.NetworkAddress(cfg.Host, cfg.Port)
	var lc net.ListenConfig
	s.listener, err = lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s.carrying.Go(s.accept)
	t.Cleanup(func() {
		_ = s.listener.Close()
		s.cut()
		s.carrying.Wait()
	})
	return s, fmt.Sprintf("postgres://%s:%s@%s/%s?sslmode=disable", cfg.User, cfg.Password, s.listener.Addr(), cfg.Database)
}

func (s *silent) accept() {
	for {
		client, err := s.listener.Accept()
		if err != nil {
			return
		}
		var d net.Dialer
		server, err := d.DialContext(context.Background(), s.network, s.target)
		if err != nil {
			_ = client.Close()
			continue
		}
		p := &pair{client: client, server: server}
		s.mu.Lock()
		s.conns = append(s.conns, p)
		s.mu.Unlock()
		s.carrying.Go(func() { s.carry(p, server, client) })
		s.carrying.Go(func() { s.carry(p, client, server) })
	}
}

func (s *silent) carry(p *pair, to io.WriteCloser, from io.ReadCloser) {
	defer func() { _, _ = to.Close(), from.Close() }()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		s.mu.Lock()
		frozen := p.frozen
		s.mu.Unlock()
		if frozen {
			continue
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}

// freeze makes every open connection silent, and returns how many there were.
func (s *silent) freeze() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.conns {
		p.frozen = true
	}
	return len(s.conns)
}

// cut ends all connections.
func (s *silent) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.conns {
		_, _ = p.client.Close(), p.server.Close()
	}
}

var work = pg.MigrationSet{Name: "work", FS: fstest.MapFS{"00001_work.sql": {Data: []byte(`-- +goose Up
CREATE TABLE work (id int PRIMARY KEY, epoch int NOT NULL DEFAULT 0, lease_until timestamptz NOT NULL DEFAULT now(), done int NOT NULL DEFAULT 0);
GRANT SELECT, INSERT, UPDATE ON work TO turumba_worker;
`)}}}

// TestHalfOpenDatabase: connections go silent while the queue is idle, or in the middle
// of jobs; all jobs are done over new ones, each once.
func TestHalfOpenDatabase(t *testing.T) {
	t.Parallel()
	for name, before := range map[string]int{"idle": 0, "in the middle": 10} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := pgtest.New(t, work)
			direct := d.Open(t, pg.RoleWorker)
			proxy, url := newSilent(t, d.URL)
			db := (&pgtest.Database{URL: url}).Open(t, pg.RoleWorker)
			t.Cleanup(proxy.cut) // before the pool is closed, which waits for silent ones
			loops, err := jobs.NewLoops(clock.System(), nil)
			require.NoError(t, err)
			q := workQueue(db, loops)
			ctx, stop := context.WithCancel(t.Context())
			ran := make(chan error, 1)
			go func() { ran <- q.Run(ctx) }()
			add := func(from, to int) {
				_, err := direct.Pool().Exec(t.Context(), "INSERT INTO work (id) SELECT generate_series($1::int, $2::int)", from, to)
				require.NoError(t, err)
				q.Wake()
			}
			done := func(where string) (n int) {
				require.NoError(t, direct.Pool().QueryRow(t.Context(), "SELECT count(*) FROM work WHERE "+where).Scan(&n))
				return n
			}
			add(1, 40)
			require.Eventually(t, func() bool { return done("done > 0") > before }, time.Minute, time.Millisecond)
			if before == 0 {
				require.Eventually(t, func() bool { return done("done > 0") == 40 }, time.Minute, time.Millisecond)
			}
			require.NotZero(t, proxy.freeze())
			add(41, 60)
			require.Eventually(t, func() bool { return done("done > 0") == 60 }, time.Minute, 10*time.Millisecond)
			require.Zero(t, done("done > 1"), "each once")
			require.NoError(t, loops.Ready(t.Context()))
			stop()
			require.NoError(t, <-ran)
		})
	}
}

// workQueue has small limits, which the test waits for.
func workQueue(db *pg.DB, loops *jobs.Loops) *jobs.Queue[claimed] {
	held := func(ctx context.Context, c *claimed, set string, args ...any) error {
		tag, err := db.Pool().Exec(ctx, "UPDATE work SET "+set+" WHERE id = $1 AND epoch = $2", append([]any{c.id, c.epoch}, args...)...)
		if err == nil && tag.RowsAffected() == 0 {
			return jobs.ErrFenced
		}
		return err
	}
	return &jobs.Queue[claimed]{
		Name: "work", Workers: 3, Lease: 3 * time.Second, Poll: 50 * time.Millisecond, Limit: 300 * time.Millisecond, Stall: 600 * time.Millisecond,
		Clock: clock.System(), Logger: telemetry.Discard(), Loops: loops,
		Claim: func(ctx context.Context, lease time.Duration) (*claimed, error) {
			c := &claimed{}
			err := db.Pool().QueryRow(ctx, `
				UPDATE work SET epoch = epoch + 1, lease_until = now() + $1
				WHERE id = (SELECT id FROM work WHERE done = 0 AND lease_until <= now() ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED)
				RETURNING id, epoch`, lease).Scan(&c.id, &c.epoch)
			if err != nil {
				return nil, pg.NoRows(err, nil)
			}
			return c, nil
		},
		Do: func(ctx context.Context, c *claimed) error {
			if err := held(ctx, c, "lease_until = now() + interval '3 seconds'"); err != nil {
				return err
			}
			jobs.Progress(ctx)
			return held(ctx, c, "done = done + 1")
		},
		Release: func(ctx context.Context, c *claimed, delay time.Duration) error {
			return held(ctx, c, "lease_until = now() + $3", delay)
		},
	}
}
