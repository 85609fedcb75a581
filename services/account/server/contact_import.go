package server

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	accountv1 "github.com/turumba/turumba/gen/turumba/account/v1"
	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/auth"
	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/idempotency"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/query"
	"github.com/turumba/turumba/kit/streams"
	account "github.com/turumba/turumba/services/account"
	"github.com/turumba/turumba/services/account/contactcsv"
	"github.com/turumba/turumba/services/account/postgres"
)

const (
	chunkSize  = 1 << 20 // bytes of a file that are stored at once
	flushLimit = 5 * time.Second
)

// ImportContacts implements accountv1.ContactImportServiceServer.
func (s *Server) ImportContacts(stream grpc.ClientStreamingServer[accountv1.ImportContactsRequest, accountv1.ImportContactsResponse]) error {
	ctx := stream.Context()
	first, err := stream.Recv()
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if first.GetSettings() == nil {
		return account.InvalidField("settings", "must be the first message")
	}
	u, err := s.newUpload(ctx, first.GetSettings())
	if err != nil {
		return err
	}
	for {
		m, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF):
			if err := u.finish(ctx); err != nil {
				return err
			}
			if u.replayed {
				if err := stream.SetHeader(metadata.Pairs("idempotency-replayed", "true")); err != nil {
					return fmt.Errorf("set a header: %w", err)
				}
			}
			return stream.SendAndClose(&accountv1.ImportContactsResponse{ContactImport: toProtoImport(u.im)})
		case err != nil:
			u.keep(ctx)
			return err
		case m.GetSettings() != nil:
			return account.InvalidField("settings", "must be in the first message only")
		}
		if err := u.write(ctx, m.GetData()); err != nil {
			return err
		}
	}
}

// upload is a file that is arriving.
type upload struct {
	s        *Server
	settings *accountv1.ContactImportSettings
	im       *account.Import
	buf      []byte
	begun    bool // the import is stored
	replayed bool // the whole call was answered before
}

// newUpload begins a file, or continues one.
func (s *Server) newUpload(ctx context.Context, set *accountv1.ContactImportSettings) (*upload, error) {
	im, err := s.uploadOf(ctx, set)
	if err != nil {
		return nil, err
	}
	if err := streams.Settle(ctx, im.AccountID); err != nil {
		return nil, err
	}
	if err := s.contacts.CheckGroups(ctx, im.AccountID, set.GetContactGroupIds()); err != nil {
		return nil, err
	}
	if im.ID == "" {
		return &upload{s: s, settings: set, im: im}, nil
	}
	if im.Status != account.ImportUploading {
		return nil, apierr.New(errorv1.Reason_REASON_INVALID_STATE, "the import is %s and takes no more bytes", im.Status)
	}
	if im.ReceivedBytes != set.GetOffset() {
		return nil, apierr.New(errorv1.Reason_REASON_CONFLICT, "%d bytes of the file have arrived; continue from there", im.ReceivedBytes)
	}
	return &upload{s: s, im: im, begun: true}, nil
}

// uploadOf is the import that the settings describe, or the one that they continue.
func (s *Server) uploadOf(ctx context.Context, set *accountv1.ContactImportSettings) (*account.Import, error) {
	scope, caller := auth.ScopeFrom(ctx), auth.From(ctx)
	if set.GetContactImportId() != "" {
		if set.GetAccountId() != "" {
			id, err := scope.Target(set.GetAccountId(), caller)
			if err != nil {
				return nil, err
			}
			scope = []string{id}
		}
		return s.store.Import(ctx, scope, set.GetContactImportId())
	}
	accountID, err := scope.Target(set.GetAccountId(), caller)
	if err != nil {
		return nil, err
	}
	if set.GetOffset() != 0 {
		return nil, account.InvalidField("offset", "must be 0 for a new import")
	}
	return &account.Import{
		AccountID: accountID, FileName: set.GetFileName(), DryRun: set.GetDryRun(), ContactGroupIDs: append([]string{}, set.GetContactGroupIds()...),
		CreatedByUserID: caller.UserID, CreatedByAPIKeyID: caller.APIKeyID, MatchBy: fromProtoKeys(set.GetMatchBy()),
	}, nil
}

// write takes the next bytes.
func (u *upload) write(ctx context.Context, data []byte) error {
	if int64(u.im.ReceivedBytes)+int64(len(u.buf))+int64(len(data)) > account.MaxImport {
		u.keep(ctx)
		return apierr.New(errorv1.Reason_REASON_PAYLOAD_TOO_LARGE, "the file is larger than 1 GiB")
	}
	u.buf = append(u.buf, data...)
	if !u.begun && len(u.buf) >= contactcsv.SampleSize {
		if err := u.begin(ctx); err != nil {
			return err
		}
	}
	for u.begun && !u.replayed && len(u.buf) >= chunkSize {
		if err := u.flush(ctx, chunkSize); err != nil {
			return err
		}
	}
	if u.replayed {
		u.buf = u.buf[:0]
	}
	return nil
}

// begin finds out how to read the file by its first bytes and stores the import.
func (u *upload) begin(ctx context.Context) error {
	sample := u.buf[:min(len(u.buf), contactcsv.SampleSize)]
	format, err := contactcsv.Detect(sample, u.settings.GetEncoding(), u.settings.GetDelimiter())
	if err != nil {
		return err
	}
	if u.im.Columns, err = contactcsv.Map(format.Header, u.settings.GetMapping()); err != nil {
		return err
	}
	u.im.Encoding, u.im.Delimiter = format.Encoding, string(format.Delimiter)
	u.im.Warnings = contactcsv.Warnings(sample, format, u.settings.GetEncoding() != "", u.im.Columns, u.settings.GetMapping())
	if err := u.hash(ctx); err != nil {
		return err
	}
	err = u.s.store.DB().InTx(ctx, []string{u.im.AccountID}, func(tx *pg.Tx) error {
		if err := tx.Idempotent(ctx, u.im.AccountID); err != nil {
			return err
		}
		if err := u.s.store.CreateImport(ctx, tx, u.im); err != nil {
			return err
		}
		return tx.Respond(ctx, &accountv1.ImportContactsResponse{ContactImport: toProtoImport(u.im)})
	})
	var replay *pg.ReplayError
	if errors.As(err, &replay) {
		return u.replay(ctx, replay)
	}
	u.begun = err == nil
	return err
}

// hash tells the idempotency key what the request is: its settings and how the file
// begins.
func (u *upload) hash(ctx context.Context) error {
	r, ok := idempotency.From(ctx)
	if !ok {
		return nil
	}
	settings, err := proto.MarshalOptions{Deterministic: true}.Marshal(u.settings)
	if err != nil {
		return fmt.Errorf("hash the settings: %w", err)
	}
	h := sha256.New()
	h.Write(settings)
	h.Write(u.buf[:min(len(u.buf), contactcsv.SampleSize)])
	r.Hash = h.Sum(nil)
	return nil
}

// replay answers a key that was used before with the import that it began.
func (u *upload) replay(ctx context.Context, r *pg.ReplayError) error {
	stored := &accountv1.ImportContactsResponse{}
	if err := r.Response.UnmarshalTo(stored); err != nil {
		return fmt.Errorf("read the stored response: %w", err)
	}
	im, err := u.s.store.Import(ctx, []string{u.im.AccountID}, stored.GetContactImport().GetId())
	if err != nil {
		return err
	}
	if im.Status == account.ImportUploading {
		return apierr.New(errorv1.Reason_REASON_CONFLICT, "the upload of import %s broke after %d bytes; continue it with contact_import_id and offset", im.ID, im.ReceivedBytes).
			WithMeta("existing_id", im.ID)
	}
	u.im, u.begun, u.replayed = im, true, true
	return nil
}

// flush stores the first n bytes that wait.
func (u *upload) flush(ctx context.Context, n int) error {
	if err := u.s.store.AppendImport(ctx, u.im, u.buf[:n]); err != nil {
		return err
	}
	u.buf = slices.Delete(u.buf, 0, n)
	return nil
}

// keep stores what has arrived of a file whose upload breaks, so that it can go on
// from there.
func (u *upload) keep(ctx context.Context) {
	if !u.begun || u.replayed || len(u.buf) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushLimit)
	defer cancel()
	_ = u.flush(ctx, len(u.buf)) // less is kept, and received_bytes tells
}

// finish makes the import ready.
func (u *upload) finish(ctx context.Context) error {
	if !u.begun {
		if err := u.begin(ctx); err != nil {
			return err
		}
	}
	if u.replayed {
		return nil
	}
	if len(u.buf) > 0 {
		if err := u.flush(ctx, len(u.buf)); err != nil {
			return err
		}
	}
	return u.s.store.QueueImport(ctx, u.im)
}

// GetContactImport implements accountv1.ContactImportServiceServer.
func (s *Server) GetContactImport(ctx context.Context, req *accountv1.GetContactImportRequest) (*accountv1.GetContactImportResponse, error) {
	im, err := s.store.Import(ctx, auth.ScopeFrom(ctx), req.GetContactImportId())
	if err != nil {
		return nil, err
	}
	return &accountv1.GetContactImportResponse{ContactImport: toProtoImport(im)}, nil
}

// ListContactImports implements accountv1.ContactImportServiceServer.
func (s *Server) ListContactImports(ctx context.Context, req *accountv1.ListContactImportsRequest) (*accountv1.ListContactImportsResponse, error) {
	page, err := s.store.Imports(ctx, auth.ScopeFrom(ctx), query.RequestOf(req))
	if err != nil {
		return nil, err
	}
	return &accountv1.ListContactImportsResponse{Data: mapAll(page.Data, toProtoImport), Meta: page.Meta}, nil
}

// CancelContactImport implements accountv1.ContactImportServiceServer.
func (s *Server) CancelContactImport(ctx context.Context, req *accountv1.CancelContactImportRequest) (*accountv1.CancelContactImportResponse, error) {
	im, err := s.store.CancelImport(ctx, auth.ScopeFrom(ctx), req.GetContactImportId())
	if err != nil {
		return nil, err
	}
	return &accountv1.CancelContactImportResponse{ContactImport: toProtoImport(im)}, nil
}

// WatchContactImport implements accountv1.ContactImportServiceServer.
func (s *Server) WatchContactImport(req *accountv1.WatchContactImportRequest, stream grpc.ServerStreamingServer[accountv1.WatchContactImportResponse]) error {
	return s.watched.Watch(stream.Context(), auth.ScopeFrom(stream.Context()), req.GetContactImportId(), stream.Send)
}

// watchImports looks at imports for all who watch them.
func watchImports(store *postgres.Store, c clock.Clock) *streams.Watcher[*accountv1.WatchContactImportResponse] {
	return streams.NewWatcher(c, apierr.NotFound("contact import"), func(ctx context.Context, scope, ids []string) ([]streams.State[*accountv1.WatchContactImportResponse], error) {
		found, err := store.WatchedImports(ctx, scope, ids)
		return mapAll(found, func(im *account.Import) streams.State[*accountv1.WatchContactImportResponse] {
			return streams.State[*accountv1.WatchContactImportResponse]{
				ID: im.ID, Account: im.AccountID, Changed: im.UpdatedAt, Final: im.Final(), Row: &accountv1.WatchContactImportResponse{ContactImport: toProtoImport(im)},
			}
		}), err
	})
}

func toProtoImport(im *account.Import) *accountv1.ContactImport {
	return &accountv1.ContactImport{
		Id: im.ID, AccountId: im.AccountID, FileName: im.FileName, DryRun: im.DryRun, Encoding: im.Encoding, Delimiter: im.Delimiter,
		Status: accountv1.ContactImportStatus(accountv1.ContactImportStatus_value["CONTACT_IMPORT_STATUS_"+strings.ToUpper(string(im.Status))]),
		Columns: mapAll(im.Columns, func(c account.ImportColumn) *accountv1.ContactImportColumn {
			return &accountv1.ContactImportColumn{Header: c.Header, Field: c.Field}
		}),
		MatchBy: mapAll(im.MatchBy, func(k account.ContactKey) accountv1.ContactKey {
			return accountv1.ContactKey(accountv1.ContactKey_value["CONTACT_KEY_"+strings.ToUpper(string(k))])
		}),
		Warnings: mapAll(im.Warnings, func(w account.ImportWarning) *accountv1.ContactImportWarning {
			return &accountv1.ContactImportWarning{Code: w.Code, Column: w.Column, Message: w.Message, Alternative: w.Alternative}
		}),
		ContactGroupIds: im.ContactGroupIDs, ReceivedBytes: im.ReceivedBytes, ProcessedBytes: im.ProcessedBytes, RowCount: im.RowCount,
		CreatedCount: im.CreatedCount, UpdatedCount: im.UpdatedCount, RejectedCount: im.RejectedCount, ErrorMessage: im.ErrorMessage,
		CreatedByUserId: im.CreatedByUserID, FinishedAt: stampOrNil(im.FinishedAt), CreatedAt: stamp(im.CreatedAt), UpdatedAt: stamp(im.UpdatedAt),
	}
}

func fromProtoKeys(keys []accountv1.ContactKey) []account.ContactKey {
	if len(keys) == 0 {
		return account.DefaultMatchBy()
	}
	return mapAll(keys, func(k accountv1.ContactKey) account.ContactKey {
		return account.ContactKey(strings.ToLower(strings.TrimPrefix(k.String(), "CONTACT_KEY_")))
	})
}
