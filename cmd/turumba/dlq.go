package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/turumba/turumba/kit/config"
	"github.com/turumba/turumba/kit/process"
)

const dlqUsage = `turumba dlq <list|show|redrive> [flags]

  list     what consumers gave up, and events that the relay keeps failing to publish  [--type T] [--limit N]
  show     one of them with its content                                                --id ID
  redrive  give back to where it came from: one, a type, or all                        --id ID | --type T | --all
`

// dlqConfig is what `dlq` takes.
type dlqConfig struct {
	Operator
	AMQPURL config.Secret `env:"AMQP_URL" help:"RabbitMQ; without it there are only the events of the relay"`
	Type    string        `env:"TURUMBA_TYPE" flag:"type" help:"only this event type, such as group_message.queued"`
	ID      string        `env:"TURUMBA_ID" flag:"id" help:"only this event"`
	Limit   int           `env:"TURUMBA_LIMIT" envDefault:"1000" flag:"limit" help:"the most that are shown, 1 to 100000"`
	All     bool          `env:"TURUMBA_ALL" flag:"all" help:"redrive everything"`
}

// Validate reports what Load cannot see by the types.
func (c dlqConfig) Validate() error {
	if c.Limit < 1 || c.Limit > 100_000 {
		return errors.New("--limit must be between 1 and 100000")
	}
	return nil
}

// deadLetter is one thing that did not get where it should.
type deadLetter struct {
	ID   string `json:"id"`
	Type string `json:"type"`
	// Source is "broker", given up by a consumer, or "outbox", not yet published.
	Source     string    `json:"source"`
	Queue      string    `json:"queue,omitempty"`
	Reason     string    `json:"reason"`
	Problem    string    `json:"problem,omitempty"` // what a look at it finds
	Since      time.Time `json:"since"`
	AgeSeconds int64     `json:"age_seconds"`
	Bytes      int       `json:"bytes"`
	// Body is only shown alone.
	Body string `json:"body,omitempty"`

	body []byte
}

// dlqReport is what a command found and did.
type dlqReport struct {
	Note     string       `json:"note,omitempty"`
	Letters  []deadLetter `json:"dead_letters"`
	Redriven int          `json:"redriven"`
	Failed   []string     `json:"failed"`
}

// noBroker is what there is to say about the in-process bus.
const noBroker = "AMQP_URL is not set: the in-process bus keeps its dead letters in the memory of the running turumba and loses them at its end; its log names each. Events of the relay follow."

func dlq(ctx context.Context, environ, args []string, stdout, stderr io.Writer) int {
	verb := ""
	if len(args) > 0 {
		verb, args = args[0], args[1:]
	}
	var run func(*review, context.Context) error
	switch verb {
	case "list":
		run = (*review).list
	case "show":
		run = (*review).show
	case "redrive":
		run = (*review).redrive
	case "help", "--help", "-h":
		fmt.Fprint(stdout, dlqUsage)
		return 0
	default:
		fmt.Fprint(stderr, dlqUsage)
		return 2
	}
	return process.Main(ctx, environ, args, stdout, stderr, func(ctx context.Context, cfg dlqConfig) error {
		r, err := openReview(ctx, cfg, stdout)
		if err != nil {
			return err
		}
		defer r.close(context.WithoutCancel(ctx))
		return run(r, ctx)
	})
}
