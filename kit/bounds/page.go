package bounds

import (
	"bytes"
	"context"
	"errors"
	"time"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
)

// What the page of a list weighs: its bytes, and what rows and values cost besides.
const (
	// MaxPage is the most that a page may weigh. Its answer fits into the 4 MiB that gRPC
	// clients take unless they are told otherwise.
	MaxPage = 4 << 20
	// freePage is the weight of a page that needs no room: a hundred rows without much in
	// them.
	freePage = 256 << 10
	rowCosts = 512
	// valueCosts is for each value of JSON, which has four times as much in memory.
	valueCosts = 128
	// fewRows is how many rows a list may ask for that never waits before it reads.
	fewRows = 100
	// pageWait is how long a page waits for room.
	pageWait = 10 * time.Second
)

// Pages is the room of the pages that calls are answering with: eight of the largest, two of
// them for one caller. A page of up to freePage needs none (ADR 0058).
var Pages = Measure{All: 8 * MaxPage, One: 2 * MaxPage, Small: 0, Uncounted: freePage}

var (
	// ErrFull tells that a row belongs to the next page.
	ErrFull = errors.New("the page is full")
	// ErrNoRoom tells that a page has become so large that it has to wait for room, without
	// anything of it in its hands.
	ErrNoRoom = errors.New("no room for a page so large")
)

var errManyPages = apierr.New(errorv1.Reason_REASON_UNAVAILABLE, "too many large answers at once").WithRetryAfter(time.Second)

// Answer is the room of what one call answers with, until Leave.
type Answer struct {
	room   *Room
	caller string
	held   []*Held
}

// NewAnswer is the answer of a caller's call, with none of the room yet.
func NewAnswer(room *Room, caller string) *Answer { return &Answer{room: room, caller: caller} }

// Leave gives the room back.
func (a *Answer) Leave() {
	for _, h := range a.held {
		h.Leave()
	}
}

type answerKey struct{}

// WithAnswer returns a context whose lists are read for a.
func WithAnswer(ctx context.Context, a *Answer) context.Context {
	return context.WithValue(ctx, answerKey{}, a)
}

// Page weighs the page of a list while it is read.
type Page struct {
	answer *Answer // nil where nobody is answered: the page is not more than its reader asked for
	most   int64
	held   *Held
	rows   int
	weight int64
}

// NewPage is an empty page of at most so much weight, MaxPage where that is 0, of the call of
// ctx.
func NewPage(ctx context.Context, most int64) *Page {
	if most == 0 {
		most = MaxPage
	}
	a, _ := ctx.Value(answerKey{}).(*Answer)
	return &Page{answer: a, most: most}
}

// ReadPage reads the page of a list that asks for so many rows, and reports whether there are
// more than it holds: read adds rows to the page until Add fails, and fails with what Add
// says. A page that is too large to be read beside those of others waits for its room with
// empty hands, and is read once more. most is as for NewPage.
func ReadPage(ctx context.Context, most int64, rows int32, read func(*Page) error) (more bool, err error) {
	page := NewPage(ctx, most)
	if err := page.Queue(ctx, rows); err != nil {
		return false, err
	}
	err = read(page)
	if errors.Is(err, ErrNoRoom) {
		if err := page.Wait(ctx); err != nil {
			return false, err
		}
		err = read(page) // which has its room now
	}
	page.Read()
	if errors.Is(err, ErrFull) {
		return true, nil
	}
	return false, err
}

// Queue waits for room before anything is read, where that is how it would end: a list of many
// rows, whose caller has other large ones waiting already. It fails with UNAVAILABLE.
func (p *Page) Queue(ctx context.Context, rows int32) error {
	if p.answer == nil || rows <= fewRows || !p.answer.room.Waits(p.answer.caller, p.most) {
		return nil
	}
	return p.Wait(ctx)
}

// Rest is about what so many more rows would weigh.
func (p *Page) Rest(rows int) int64 { return p.weight * int64(rows) / int64(max(1, p.rows)) }

// Add adds a row of so many bytes, with so many values of JSON in them. It fails with ErrFull
// where the row belongs to the next page, which the first never does, and with ErrNoRoom
// where the page has to wait: what was read of it has to be dropped, and is read again
// after Wait.
func (p *Page) Add(size, values int) error {
	w := int64(size) + rowCosts + int64(values)*valueCosts
	if p.rows > 0 && p.weight+w > p.most {
		return ErrFull
	}
	p.rows, p.weight = p.rows+1, p.weight+w
	if p.weight <= freePage || p.answer == nil || p.held != nil {
		return nil
	}
	held, ok := p.answer.room.Try(p.answer.caller, p.most)
	if !ok {
		return ErrNoRoom
	}
	p.has(held)
	return nil
}

// Wait waits for room for a page that was told ErrNoRoom. It fails with UNAVAILABLE.
func (p *Page) Wait(ctx context.Context) error {
	p.rows, p.weight = 0, 0
	limited, cancel := context.WithTimeout(ctx, pageWait)
	defer cancel()
	held, err := p.answer.room.Take(limited, p.answer.caller, p.most)
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		return errManyPages.Wrap(err)
	}
	p.has(held)
	return nil
}

func (p *Page) has(h *Held) {
	p.held = h
	p.answer.held = append(p.answer.held, h)
}

// Read tells that the page was read: it needs no more room than it has.
func (p *Page) Read() { p.held.Keep(p.weight) }

// JSONValues counts the values in JSON that is known to be valid: what begins lists and
// objects, and what divides their items.
func JSONValues(b []byte) (n int) {
	for i := 0; i < len(b); i++ {
		switch b[i] {
		case ',', '[', '{':
			n++
		case '"':
			i += restOfText(b[i+1:])
		}
	}
	return n
}

// restOfText is how many bytes of b are the rest of a text, with the mark at its end.
func restOfText(b []byte) int {
	for at := 0; ; {
		end := bytes.IndexByte(b[at:], '"')
		if end < 0 {
			return len(b)
		}
		at += end
		escapes := 0
		for at > escapes && b[at-1-escapes] == '\\' {
			escapes++
		}
		if at++; escapes%2 == 0 {
			return at
		}
	}
}
