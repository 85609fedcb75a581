package rabbitmq

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/tcp"
)

const (
	// greetTimeout bounds the AMQP greeting.
	greetTimeout = 5 * time.Second
	// requestTimeout bounds requests that wait for the broker's answers. A broker whose
	// connection is alive may still never answer one, for example about a queue without a
	// leader.
	requestTimeout = 30 * time.Second
)

// errHungUp is the reason when neither side gave one.
var errHungUp = errors.New("connection closed")

// session is one connection to the broker from its opening to its loss.
type session struct {
	conn      *amqp.Connection
	raw       net.Conn   // under conn
	publisher *publisher // on the publishing link
	blocked   atomic.Bool
	lost      chan struct{} // closed when the connection is gone
	reason    error         // set before lost is closed
}

// openSession connects and greets the broker.
func openSession(ctx context.Context, url, name string, heartbeat time.Duration) (*session, error) {
	s := &session{lost: make(chan struct{})}
	properties := amqp.NewConnectionProperties()
	properties.SetClientConnectionName(name)
	var stop func() bool
	conn, err := amqp.DialConfig(url, amqp.Config{
		Heartbeat: heartbeat, Locale: "en_US", Properties: properties,
		Dial: func(network, addr string) (net.Conn, error) {
			raw, err := tcp.Dialer().DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			// The library lifts it once it is greeted.
			if err := raw.SetDeadline(clock.System().Now().Add(greetTimeout)); err != nil {
				return nil, errors.Join(err, raw.Close())
			}
			s.raw = raw
			stop = context.AfterFunc(ctx, s.drop)
			return raw, nil
		},
	})
	if stop != nil {
		stop()
	}
	if err != nil {
		return nil, err
	}
	s.conn = conn
	go s.watch(conn.NotifyBlocked(make(chan amqp.Blocking, 8)), conn.NotifyClose(make(chan *amqp.Error, 1)))
	return s, nil
}

// watch follows the broker's notices until the connection is gone.
func (s *session) watch(blocks <-chan amqp.Blocking, closes <-chan *amqp.Error) {
	for {
		select {
		case b, ok := <-blocks:
			if !ok {
				blocks = nil
				continue
			}
			s.blocked.Store(b.Active)
		case err := <-closes:
			s.reason = errHungUp
			if err != nil {
				s.reason = err
			}
			close(s.lost)
			return
		}
	}
}

// failure returns why the session was lost; only after lost is closed.
func (s *session) failure() error { return s.reason }

// drop cuts the connection without a word, for one that no longer answers.
func (s *session) drop() {
	// The error of closing a dead connection says nothing.
	_ = s.raw.Close()
}

// within runs requests that wait for the broker's answers and, because those
// take no context, drops the connection when they take too long or ctx ends.
func (s *session) within(ctx context.Context, requests func() error) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	defer context.AfterFunc(ctx, s.drop)()
	return requests()
}

// close takes leave of the broker and returns when the session is over.
func (s *session) close(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	defer context.AfterFunc(ctx, s.drop)()
	// What fails here is already lost, which is what was wanted.
	_ = s.conn.Close()
	<-s.lost
}
