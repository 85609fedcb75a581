package identity

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/jobs"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/vault"
	account "github.com/turumba/turumba/services/account"
	"github.com/turumba/turumba/services/account/postgres"
)

const (
	mailSenders = 4                // connections to the mail server at once
	mailLife    = 24 * time.Hour   // a mail that cannot be sent is given up then
	mailRetry   = 15 * time.Second // doubled with each failure
	deleteTries = 3                // of a mail that was sent
	// mailLease is longer than sending and deleting a mail may take: nobody else sends
	// it meanwhile.
	mailLease = mailLimit + deleteTries*jobs.DefaultLimit + 5*time.Second
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
	queue  *jobs.Queue[postgres.Mail]
	turn   atomic.Uint64 // whose claim is next
}

// NewPostbox makes a postbox; Run sends what is queued. loops get its finished turns;
// nil tells nobody.
func NewPostbox(store *postgres.Store, v *vault.Vault, mailer Mailer, c clock.Clock, log *slog.Logger, loops *jobs.Loops) *Postbox {
	p := &Postbox{store: store, vault: v, mailer: mailer}
	p.queue = &jobs.Queue[postgres.Mail]{
		Name: "mail", Workers: mailSenders, Lease: mailLease, Retry: mailRetry, Clock: c, Logger: log, Loops: loops,
		Claim: p.claim, Do: p.send, Release: store.ReleaseMail, ID: func(m *postgres.Mail) string { return m.ID },
	}
	store.OnMail(p.queue.Wake)
	return p
}

// sealed is a mail as it is sealed.
type sealed struct{ To, Subject, Text string }

// MailAAD is the place of a mail that waits.
func MailAAD(id string) vault.AAD {
	return vault.AAD{Account: "platform", Resource: id, Field: "mail", Version: 1}
}

var errNoMailing = apierr.Internal(errors.New("a mail is queued by a call whose RPC does not say sends_mail"))

// Queue queues a mail in the transaction that it tells of: the answer to the
// caller takes as long without one, and a crash loses none. Only calls of an RPC that says
// sends_mail may, which have their budget by then.
func (p *Postbox) Queue(ctx context.Context, tx *pg.Tx, to string, l Letter) error {
	a, _ := admissionOf(ctx)
	if a.mail == "" {
		return errNoMailing
	}
	plain, err := json.Marshal(sealed{to, l.subject, l.text})
	if err != nil {
		return fmt.Errorf("write a mail: %w", err)
	}
	id := account.NewID()
	box, err := p.vault.Seal(MailAAD(id), plain)
	if err != nil {
		return fmt.Errorf("seal a mail: %w", err)
	}
	return p.store.QueueMail(ctx, tx, id, string(a.mail), box, tx.Now.Add(mailLife))
}

// Run sends queued mails until ctx ends.
func (p *Postbox) Run(ctx context.Context) error { return p.queue.Run(ctx) }

// claim takes a mail. Each purpose is asked for in turn, so that many mails of one hold up
// no other.
func (p *Postbox) claim(ctx context.Context, lease time.Duration) (*postgres.Mail, error) {
	turn := int(p.turn.Add(1) % uint64(len(Purposes)))
	return p.store.ClaimMail(ctx, Purposes[turn], lease)
}

// send sends one mail. Once the server has it, its row goes whatever else happens, or
// it would be sent again.
func (p *Postbox) send(ctx context.Context, m *postgres.Mail) error {
	plain, err := p.vault.Open(MailAAD(m.ID), m.Sealed)
	if err != nil {
		return fmt.Errorf("open a mail: %w", err)
	}
	var l sealed
	if err := json.Unmarshal(plain, &l); err != nil {
		return fmt.Errorf("read a mail: %w", err)
	}
	sent := jobs.Call(ctx, mailLimit)
	err = p.mailer.Send(ctx, l.To, l.Subject, l.Text)
	if sent(); err != nil {
		return err
	}
	for range deleteTries {
		if err = p.delete(ctx, m.ID); err == nil {
			return nil
		}
	}
	return err
}

func (p *Postbox) delete(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), jobs.DefaultLimit)
	defer cancel()
	return p.store.DeleteMail(ctx, id)
}
