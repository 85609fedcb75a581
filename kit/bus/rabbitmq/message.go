package rabbitmq

import (
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/turumba/turumba/kit/bus"
)

// toPublishing makes a persistent AMQP message.
func toPublishing(m bus.Message) amqp.Publishing {
	p := amqp.Publishing{
		MessageId: m.ID, Body: m.Body, DeliveryMode: amqp.Persistent,
		ContentType: m.Headers[bus.HeaderContentType],
	}
	for key, value := range m.Headers {
		if key == bus.HeaderContentType {
			continue
		}
		if p.Headers == nil {
			p.Headers = make(amqp.Table, len(m.Headers))
		}
		p.Headers[key] = value
	}
	return p
}

// fromDelivery reads what another program may have written: headers that are
// not texts are left out.
func fromDelivery(d amqp.Delivery) bus.Message {
	m := bus.Message{ID: d.MessageId, RoutingKey: d.RoutingKey, Body: d.Body, Redelivered: d.Redelivered}
	if len(d.Headers) > 0 || d.ContentType != "" {
		m.Headers = make(map[string]string, len(d.Headers)+1)
	}
	for key, value := range d.Headers {
		if text, ok := value.(string); ok {
			m.Headers[key] = text
		}
	}
	if d.ContentType != "" {
		m.Headers[bus.HeaderContentType] = d.ContentType
	}
	return m
}

// deliveryCount is how often a quorum queue has seen this message fail; 0 where
// the queue does not count.
func deliveryCount(d amqp.Delivery) int {
	switch n := d.Headers["x-delivery-count"].(type) {
	case int64:
		return int(n)
	case int32:
		return int(n)
	default:
		return 0
	}
}
