package dispatch

import (
	"context"
	"errors"
	"time"

	"github.com/turumba/turumba/kit/vault"
	"github.com/turumba/turumba/services/messaging"
	"github.com/turumba/turumba/services/messaging/channel"
	"github.com/turumba/turumba/services/messaging/postgres"
)

// equipment is what messages are called with. It is not changed: a change of the channel
// brings another one.
type equipment struct {
	channel  *messaging.Channel
	line     *line
	renderer *messaging.Renderer
	subject  *messaging.Renderer // the channel's own subject line; nil for none
	files    []*channel.Attachment
}

// blockedCheck is how long a chunk of an account that must not send is put off; it
// is not claimed while the account is blocked.
const blockedCheck = time.Second

// start loads a chunk, from memory if that is where it comes from.
func (r *runner) start(ctx context.Context) (rest postgres.Rest, ok bool, err error) {
	if r.messages != nil {
		if w, found := r.recent.get(r.chunk, r.cfg.Clock.Now()); found {
			return r.equip(ctx, w)
		}
	}
	return r.load(ctx)
}

// load reads what the chunk is sent with. ok is false if it cannot be sent now;
// rest says what to do with it.
func (r *runner) load(ctx context.Context) (rest postgres.Rest, ok bool, err error) {
	now := r.cfg.Clock.Now()
	w, err := r.ledger.ChunkWork(ctx, r.chunk)
	if err != nil {
		return rest, false, err
	}
	rest, ok, err = r.equip(ctx, w)
	if ok && err == nil && !r.probing {
		r.recent.put(r.chunk, w, now)
	}
	return rest, ok, err
}

// equip makes the runner ready to send with what was read.
func (r *runner) equip(ctx context.Context, w postgres.Work) (rest postgres.Rest, ok bool, err error) {
	switch {
	case w.Cancelled:
		return postgres.Rest{Status: messaging.MessageCancelled}, false, nil
	case w.Ended:
		return postgres.Rest{Gone: true}, false, nil
	case w.Channel == nil:
		return postgres.Rest{Status: messaging.MessagePermanentlyFailed, Code: messaging.CodeChannelDeleted}, false, nil
	case w.Blocked:
		return postgres.Rest{Delay: blockedCheck}, false, nil
	}
	r.equipment = &equipment{channel: w.Channel, files: r.files}
	if ok, err := r.admitted(ctx); err != nil {
		return rest, false, err
	} else if !ok {
		rest, err = r.hold(ctx)
		return rest, false, err
	}
	if err := r.bind(ctx); err != nil {
		return rest, false, err
	}
	if r.line, err = r.senders.get(r.channel, r.chunk.Lane); err != nil {
		r.broken = true
		if err := r.ledger.BreakChannel(ctx, r.seen(), true, "the channel's settings cannot be used: "+err.Error()); err != nil {
			return rest, false, err
		}
		rest, err = r.hold(ctx)
		return rest, false, err
	}
	if err := r.attach(ctx, w); err != nil {
		return rest, false, err
	}
	if err := r.parse(w); err != nil {
		return rest, false, err
	}
	r.board()
	return rest, true, nil
}

// board makes ready to call by the line.
func (r *runner) board() {
	if r.seat.equip(r.line.connections(), r.line.own()) {
		r.lane.look() // others of a slow channel may have a connection too
	}
	r.stored()
	r.flight = newFlight(r.line, &r.calling, r.settle)
	r.line.join()
	r.parted, r.passed = false, r.cfg.Clock.Now()
}

// bind makes secrets of former versions usable. What does not open stays as it is: who
// opens the channel then says so.
func (r *runner) bind(ctx context.Context) error {
	bound, err := r.cfg.Store.BindSecrets(ctx, r.cfg.Vault, r.channel)
	if errors.Is(err, vault.ErrUnknownKey) || errors.Is(err, vault.ErrCorrupt) {
		return nil
	}
	r.channel = bound
	return err
}

// attach reads the send's files, once for the chunk.
func (r *runner) attach(ctx context.Context, w postgres.Work) error {
	if w.Snapshot == nil || len(w.Snapshot.Attachments) == len(r.files) {
		return nil
	}
	digests := make([]string, len(w.Snapshot.Attachments))
	for i, a := range w.Snapshot.Attachments {
		digests[i] = a.Digest
	}
	files, err := r.ledger.Files(ctx, r.chunk.AccountID, digests)
	if err != nil {
		return err
	}
	r.files = nil
	for _, a := range w.Snapshot.Attachments {
		r.files = append(r.files, channel.NewAttachment(a.Filename, a.MediaType, a.ContentID, files[a.Digest]))
	}
	return nil
}

func (r *runner) parse(w postgres.Work) (err error) {
	if w.Snapshot != nil {
		if r.renderer, err = messaging.NewRenderer(*w.Snapshot); err != nil {
			return err
		}
	}
	if t := r.channel.SubjectTemplate(); t != "" {
		r.subject, err = messaging.NewRenderer(messaging.Snapshot{Version: messaging.RendererVersion, Subject: t})
	}
	return err
}

// reload finds out why the gate was closed, when no call is open any more. Nothing changed
// means that the lease is lost, or that what was wrong is mended since: the chunk is let go
// either way.
func (r *runner) reload(ctx context.Context) (postgres.Rest, bool, error) {
	if err := r.ground(ctx); err != nil {
		return postgres.Rest{}, false, err
	}
	seen, probing := r.channel.SendEpoch, r.probing
	rest, ok, err := r.load(ctx)
	if ok && err == nil && r.channel.SendEpoch == seen && r.probing == probing {
		return postgres.Rest{Delay: atOnce}, false, nil
	}
	return rest, ok, err
}
