package identity

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/vault"
	account "github.com/turumba/turumba/services/account"
	"github.com/turumba/turumba/services/account/postgres"
)

const (
	mailSenders = 4                // connections to the mail server at once
	mailPoll    = time.Second      // for mails of other processes and of retries
	mailLife    = 24 * time.Hour   // a mail that cannot be sent is given up then
	mailRetry   = 15 * time.Second // doubled with each failure
)

// Mailer sends our own mails.
type Mailer interface {
	// Send sends one plain-text mail.
	Send(ctx context.Context, to, subject, text string) error
}

// Postbox sends our own mails from a sealed queue.
type Postbox struct {
	store  *postgres.Store
	vault  *vault.Vault
	mailer Mailer
	clock  clock.Clock
	log    *slog.Logger
	mailed chan struct{} // a mail waits
}

// NewPostbox makes a postbox; Run sends what is queued.
func NewPostbox(store *postgres.Store, v *vault.Vault, mailer Mailer, c clock.Clock, log *slog.Logger) *Postbox {
	p := &Postbox{store: store, vault: v, mailer: mailer, clock: c, log: log, mailed: make(chan struct{}, mailSenders)}
	store.OnMail(p.wake)
	return p
}

func (p *Postbox) wake() {
	select {
	case p.mailed <- struct{}{}:
	default: // enough senders are awake
	}
}

// letter is a mail as it is sealed.
type letter struct{ To, Subject, Text string }

// MailAAD is the place of a mail that waits.
func MailAAD(id string) vault.AAD {
	return vault.AAD{Account: "platform", Resource: id, Field: "mail", Version: 1}
}

// Queue queues a mail in the transaction that it tells of: the answer to the
// caller takes as long without one, and a crash loses none.
func (p *Postbox) Queue(ctx context.Context, tx *pg.Tx, to, subject, text string) error {
	plain, err := json.Marshal(letter{to, subject, text})
	if err != nil {
		return fmt.Errorf("write a mail: %w", err)
	}
	id := account.NewID()
	sealed, err := p.vault.Seal(MailAAD(id), plain)
	if err != nil {
		return fmt.Errorf("seal a mail: %w", err)
	}
	return p.store.QueueMail(ctx, tx, id, sealed, tx.Now.Add(mailLife))
}

// Run sends queued mails until ctx ends.
func (p *Postbox) Run(ctx context.Context) error {
	var g errgroup.Group
	for range mailSenders {
		g.Go(func() error {
			p.sendMails(ctx)
			return nil
		})
	}
	return g.Wait()
}

func (p *Postbox) sendMails(ctx context.Context) {
	for ctx.Err() == nil {
		more, err := p.sendMail(ctx)
		if err != nil && ctx.Err() == nil {
			p.log.ErrorContext(ctx, "a mail could not be sent", "err", err)
		}
		if more && err == nil {
			continue
		}
		p.waitForMail(ctx)
	}
}

// waitForMail returns when a mail was queued here, or may have been elsewhere.
func (p *Postbox) waitForMail(ctx context.Context) {
	poll := p.clock.NewTimer(mailPoll)
	defer poll.Stop()
	select {
	case <-ctx.Done():
	case <-p.mailed:
	case <-poll.C():
	}
}

// sendMail sends the mail that is due longest; more tells whether there was one.
func (p *Postbox) sendMail(ctx context.Context) (more bool, err error) {
	m, err := p.store.ClaimMail(ctx, mailRetry)
	if err != nil || m == nil {
		return false, err
	}
	plain, err := p.vault.Open(MailAAD(m.ID), m.Sealed)
	if err != nil {
		return true, fmt.Errorf("open a mail: %w", err)
	}
	var l letter
	if err := json.Unmarshal(plain, &l); err != nil {
		return true, fmt.Errorf("read a mail: %w", err)
	}
	if err := p.mailer.Send(ctx, l.To, l.Subject, l.Text); err != nil {
		return true, err
	}
	return true, p.store.DeleteMail(ctx, m.ID)
}
