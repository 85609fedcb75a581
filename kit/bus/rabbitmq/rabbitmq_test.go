package rabbitmq_test

import (
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/turumba/turumba/kit/bus"
	"github.com/turumba/turumba/kit/bus/bustest"
	"github.com/turumba/turumba/kit/bus/rabbitmq"
	"github.com/turumba/turumba/kit/bus/rabbitmq/rabbittest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestContract shares one broker between the suites of both kinds of queue.
func TestContract(t *testing.T) {
	t.Parallel()
	url := rabbittest.URL(t)
	for name, quorum := range map[string]bool{"Quorum": true, "Classic": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bustest.Run(t, func(t *testing.T, topology bus.Topology, policy bus.Policy) bus.Bus {
				t.Helper()
				for i := range topology.Queues {
					topology.Queues[i].Quorum = quorum
				}
				return dial(t, url, topology, rabbitmq.Options{Policy: policy, Logger: bustest.Quiet()})
			})
		})
	}
}

// dial returns a connected bus whose exchanges and queues go with the test.
func dial(t *testing.T, url string, topology bus.Topology, o rabbitmq.Options) *rabbitmq.Bus {
	t.Helper()
	b, err := rabbitmq.Dial(t.Context(), url, topology, o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, b.Close()) })
	require.NoError(t, b.Ready(t.Context()))
	require.True(t, b.Connected())
	t.Cleanup(func() { remove(t, url, topology) })
	return b
}

// remove deletes a topology from a broker that others may use.
func remove(t *testing.T, url string, topology bus.Topology) {
	t.Helper()
	conn, err := amqp.Dial(url)
	if err != nil {
		return // the broker is gone, and all it held
	}
	ch, err := conn.Channel()
	require.NoError(t, err)
	for _, q := range append(topology.Queues, bus.Queue{Name: topology.DeadLetterQueue}) {
		_, err := ch.QueueDelete(q.Name, false, false, false)
		require.NoError(t, err)
	}
	for _, x := range []string{topology.Exchange, topology.DeadLetterExchange, topology.Exchange + ".observers"} {
		require.NoError(t, ch.ExchangeDelete(x, false, false))
	}
	require.NoError(t, conn.Close())
}

func TestDialRefusesBadArguments(t *testing.T) {
	t.Parallel()
	_, err := rabbitmq.Dial(t.Context(), "amqp://guest:hunter2@%zz/", bustest.Topology("a"), rabbitmq.Options{})
	require.ErrorIs(t, err, bus.ErrInvalid)
	require.NotContains(t, err.Error(), "hunter2")
	_, err = rabbitmq.Dial(t.Context(), "amqp://localhost/", bus.Topology{}, rabbitmq.Options{})
	require.ErrorIs(t, err, bus.ErrInvalid)
}
