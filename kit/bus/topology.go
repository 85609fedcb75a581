package bus

import (
	"fmt"
	"strings"
)

// Topology is the set of exchanges and queues a bus declares. It is plain data
// given by the program; every process on one broker must give the same.
type Topology struct {
	// Exchange is the topic exchange that Publish sends to.
	Exchange string
	// DeadLetterExchange receives messages that failed Policy.Attempts times.
	DeadLetterExchange string
	// DeadLetterQueue keeps everything sent to DeadLetterExchange until a person
	// looks. Consume accepts it; there a failed message comes again for ever.
	DeadLetterQueue string
	// Queues are the work queues.
	Queues []Queue
}

// Queue is one queue and what it wants.
type Queue struct {
	// Name is unique in the topology.
	Name string
	// Bindings are topic patterns: words separated by dots, "*" for exactly one
	// word, "#" for any number of words.
	Bindings []string
	// Optional marks an observer (audit, debugging). It gets copies at best
	// effort, keeps the newest OptionalLimit of them, and never makes a mandatory
	// message routable: a catch-all observer would otherwise hide the loss of the
	// queue that matters.
	Optional bool
	// Quorum asks for a replicated queue that survives the loss of a node. False
	// means a classic durable queue. The in-process bus ignores it.
	Quorum bool
}

// OptionalLimit is the number of messages an Optional queue keeps.
const OptionalLimit = 100_000

// Validate returns an error wrapping ErrInvalid for empty or doubled names and
// bad patterns.
func (t Topology) Validate() error {
	if t.Exchange == "" || t.DeadLetterExchange == "" || t.DeadLetterQueue == "" {
		return fmt.Errorf("%w: topology needs an exchange, a dead-letter exchange and a dead-letter queue", ErrInvalid)
	}
	if t.Exchange == t.DeadLetterExchange {
		return fmt.Errorf("%w: exchange and dead-letter exchange are both %q", ErrInvalid, t.Exchange)
	}
	seen := map[string]bool{t.DeadLetterQueue: true}
	for _, q := range t.Queues {
		if q.Name == "" || len(q.Name) > maxShortText || seen[q.Name] {
			return fmt.Errorf("%w: queue name %q is empty, too long or used twice", ErrInvalid, q.Name)
		}
		seen[q.Name] = true
		if err := validateBindings(q); err != nil {
			return err
		}
	}
	return nil
}

func validateBindings(q Queue) error {
	if len(q.Bindings) == 0 {
		return fmt.Errorf("%w: queue %q has no binding", ErrInvalid, q.Name)
	}
	for _, pattern := range q.Bindings {
		if pattern == "" || len(pattern) > maxShortText {
			return fmt.Errorf("%w: queue %q has a binding of %d bytes, want 1 to %d", ErrInvalid, q.Name, len(pattern), maxShortText)
		}
	}
	return nil
}

// Routable reports whether a message with this key reaches a queue that counts,
// that is one that is not Optional.
func (t Topology) Routable(key string) bool {
	for _, q := range t.Queues {
		if !q.Optional && q.Matches(key) {
			return true
		}
	}
	return false
}

// Matches reports whether one of the queue's bindings matches the key.
func (q Queue) Matches(key string) bool {
	for _, pattern := range q.Bindings {
		if Match(pattern, key) {
			return true
		}
	}
	return false
}

// Match reports whether a topic pattern matches a routing key, as an AMQP topic
// exchange does: "*" is exactly one word, "#" any number of words, also none.
func Match(pattern, key string) bool {
	return matchWords(strings.Split(pattern, "."), words(key))
}

// words splits a key; the empty key has no words, as in the broker.
func words(key string) []string {
	if key == "" {
		return nil
	}
	return strings.Split(key, ".")
}

// matchWords keeps the last "#" seen and, on a mismatch, lets it swallow one
// more word: linear in practice where recursion would be exponential.
func matchWords(pattern, key []string) bool {
	p, k, hash, mark := 0, 0, -1, 0
	for k < len(key) {
		switch {
		case p < len(pattern) && pattern[p] == "#":
			hash, mark = p, k
			p++
		case p < len(pattern) && (pattern[p] == "*" || pattern[p] == key[k]):
			p++
			k++
		case hash >= 0:
			mark++
			p, k = hash+1, mark
		default:
			return false
		}
	}
	for p < len(pattern) && pattern[p] == "#" {
		p++
	}
	return p == len(pattern)
}
