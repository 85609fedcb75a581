package importer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"

	"buf.build/go/protovalidate"

	accountv1 "github.com/turumba/turumba/gen/turumba/account/v1"
	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/jobs"
	account "github.com/turumba/turumba/services/account"
	"github.com/turumba/turumba/services/account/contactcsv"
	"github.com/turumba/turumba/services/account/postgres"
)

// file is a stored file that is being read.
type file struct {
	im     *account.Import
	chunks *chunkReader
	rows   *contactcsv.Reader
	check  func(*account.Contact) error
	read   int32
	// failure is why the file could not be read to its end; empty when it was.
	failure string
}

// openFile opens the file of an import and goes to where it was left: by reading,
// since no offset in the bytes stands for a row once they are decoded.
func openFile(ctx context.Context, store *postgres.Store, im *account.Import, check func(*account.Contact) error) (*file, error) {
	delimiter, _ := utf8.DecodeRuneInString(im.Delimiter)
	f := &file{im: im, chunks: &chunkReader{ctx: ctx, store: store, im: im}, check: check}
	var err error
	f.rows, err = contactcsv.NewReader(f.chunks, contactcsv.Format{Encoding: im.Encoding, Delimiter: delimiter, Header: im.Headers()})
	if err != nil {
		return nil, err
	}
	for f.read < im.ReadCount {
		if _, err := f.rows.Next(); err != nil {
			return nil, fmt.Errorf("go to row %d: %w", im.ReadCount, err)
		}
		f.read++
	}
	return f, nil
}

// batches sends the rest of the file, batch by batch.
func (f *file) batches(ctx context.Context, out chan<- postgres.ImportBatch) error {
	for {
		b, end := f.batch()
		if len(b.Rows) > 0 {
			select {
			case out <- b:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		switch {
		case errors.Is(end, io.EOF):
			return nil
		case apierr.HasReason(end, errorv1.Reason_REASON_VALIDATION_FAILED):
			f.failure = apierr.From(end).Message
			return nil
		case end != nil:
			return end
		}
	}
}

// batch reads up to batchSize rows; the error is why there are no more.
func (f *file) batch() (b postgres.ImportBatch, end error) {
	b.Rows = make([]account.ImportRow, 0, batchSize)
	for len(b.Rows) < batchSize && end == nil {
		var row account.ImportRow
		if row, end = f.rows.Next(); end != nil {
			break
		}
		f.read++
		row.Read = f.read
		if row.Err == nil && row.Cells == nil {
			continue // an empty row
		}
		if row.Err == nil {
			row.Contact, row.Err = contactcsv.Contact(f.im.Columns, row.Cells)
		}
		if row.Err == nil {
			row.Err = f.check(row.Contact)
		}
		b.Rows = append(b.Rows, row)
	}
	b.Read, b.Processed = f.read, f.chunks.offset
	return b, end
}

// check brings a contact into the form that is stored and holds it to the rules of
// the contract, as if it had come by CreateContact.
func (i *Importer) check(c *account.Contact, country string) error {
	if err := c.Normalise(country, nil); err != nil {
		return err
	}
	err := i.validator.Validate(&accountv1.ContactInput{
		Name: c.Name, FirstName: c.FirstName, LastName: c.LastName, Email: c.Email, Phone: c.Phone, Tags: c.Tags, Language: c.Language,
		Timezone: c.Timezone, ExternalId: c.ExternalID, PreferredChannelType: c.PreferredChannelType, Identifiers: c.Identifiers,
	})
	var invalid *protovalidate.ValidationError
	if errors.As(err, &invalid) && len(invalid.Violations) > 0 {
		v := invalid.Violations[0].Proto
		return account.InvalidField(protovalidate.FieldPathString(v.GetField()), v.GetMessage())
	}
	return err
}

// chunkReader reads the bytes of a stored file.
type chunkReader struct {
	ctx    context.Context
	store  *postgres.Store
	im     *account.Import
	offset int32 // of the next chunk
	chunk  []byte
}

// Read implements io.Reader.
func (r *chunkReader) Read(p []byte) (int, error) {
	if len(r.chunk) == 0 {
		var err error
		if r.chunk, err = r.store.ImportChunk(r.ctx, r.im, r.offset); err != nil {
			return 0, err
		}
		jobs.Progress(r.ctx)
		if len(r.chunk) == 0 {
			if r.offset < r.im.ReceivedBytes {
				return 0, postgres.ErrImportLost // cancelled: the file is gone
			}
			return 0, io.EOF
		}
		r.offset += int32(len(r.chunk))
	}
	n := copy(p, r.chunk)
	r.chunk = r.chunk[n:]
	return n, nil
}
