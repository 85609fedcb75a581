package server

import (
	"bufio"
	"bytes"
	"context"

	"google.golang.org/grpc"

	accountv1 "github.com/turumba/turumba/gen/turumba/account/v1"
	"github.com/turumba/turumba/kit/auth"
	"github.com/turumba/turumba/kit/query"
	"github.com/turumba/turumba/kit/streams"
	account "github.com/turumba/turumba/services/account"
	"github.com/turumba/turumba/services/account/contactcsv"
)

const (
	exportPage   = 500      // rows read at once
	exportBuffer = 64 << 10 // bytes of one message
	// pagesAtOnce is how many pages of exports are read at a time, of 16 connections: whatever is
	// exported, three quarters of them are for calls and sends (ADR 0051).
	pagesAtOnce = 4
)

// readPage reads a page of an export when it is its turn. The page before has been taken by
// the client by then, but for what the transport holds.
func readPage[T any](ctx context.Context, s *Server, read func() (T, error)) (page T, err error) {
	if err := s.pages.Acquire(ctx, 1); err != nil {
		return page, context.Cause(ctx)
	}
	defer s.pages.Release(1)
	return read()
}

// sender makes a stream of messages of what is written to it. Each message has bytes of its
// own: who receives it in the same process may read them while the next are written.
type sender func(data []byte) error

// Write implements io.Writer.
func (s sender) Write(p []byte) (int, error) { return len(p), s(bytes.Clone(p)) }

// ExportContacts implements accountv1.ContactServiceServer.
func (s *Server) ExportContacts(req *accountv1.ExportContactsRequest, stream grpc.ServerStreamingServer[accountv1.ExportContactsResponse]) error {
	columns := req.GetColumn()
	if len(columns) == 0 {
		columns = contactcsv.Columns()
	}
	out := bufio.NewWriterSize(sender(func(data []byte) error { return stream.Send(&accountv1.ExportContactsResponse{Data: data}) }), exportBuffer)
	w, err := contactcsv.NewWriter(out, columns, req.GetBom())
	if err != nil {
		return err
	}
	ctx := stream.Context()
	r := query.Request{Filters: req.GetFilter(), Sorts: []string{"created_at:asc"}, Limit: exportPage, NoTotal: true, Weight: account.ExportWeight}
	for {
		page, err := readPage(ctx, s, func() (*query.Page[*account.Contact], error) { return s.contacts.Contacts(ctx, auth.ScopeFrom(ctx), r) })
		if err != nil {
			return err
		}
		for _, c := range page.Data {
			if err := w.Write(c); err != nil {
				return err
			}
		}
		if err := w.Flush(); err != nil {
			return err
		}
		if r.PageToken = page.Meta.GetNextPageToken(); r.PageToken == "" {
			return out.Flush()
		}
	}
}

// ExportContactImportErrors implements accountv1.ContactImportServiceServer.
func (s *Server) ExportContactImportErrors(req *accountv1.ExportContactImportErrorsRequest, stream grpc.ServerStreamingServer[accountv1.ExportContactImportErrorsResponse]) error {
	ctx := stream.Context()
	im, err := s.store.Import(ctx, auth.ScopeFrom(ctx), req.GetContactImportId())
	if err != nil {
		return err
	}
	if err := streams.Settle(ctx, im.AccountID); err != nil {
		return err
	}
	out := bufio.NewWriterSize(sender(func(data []byte) error {
		return stream.Send(&accountv1.ExportContactImportErrorsResponse{Data: data})
	}), exportBuffer)
	w, err := contactcsv.NewErrorWriter(out, im.Headers())
	if err != nil {
		return err
	}
	for after := 0; ; {
		rows, err := readPage(ctx, s, func() ([]*account.RejectedRow, error) { return s.store.RejectedRows(ctx, im, after, exportPage) })
		if err != nil {
			return err
		}
		for _, r := range rows {
			if err := w.Write(r); err != nil {
				return err
			}
			after = r.Line
		}
		if err := w.Flush(); err != nil {
			return err
		}
		if len(rows) == 0 {
			return out.Flush()
		}
	}
}
