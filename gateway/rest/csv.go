package rest

import (
	"context"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"
	"os"
	"slices"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/utilities"
	"google.golang.org/grpc"

	accountv1 "github.com/turumba/turumba/gen/turumba/account/v1"
	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
)

const (
	importPath = "/v1/contacts/import"
	// maxUpload is the most bytes of an upload: a file of 1 GiB and what multipart
	// adds; the service counts the file itself.
	maxUpload = 1<<30 + 1<<20
	// maxFields is the most bytes of a form before its file, and maxAfter after it.
	maxFields = 64 << 10
	maxAfter  = 8 << 10
	// uploadPiece is how many bytes of the file one message carries.
	uploadPiece = 256 << 10
	// idleLimit is how long a client may neither send nor read (decision C8).
	idleLimit = 60 * time.Second
)

// csvFiles are the routes whose body is a CSV file, which the transcoder cannot
// carry; they lead through the same RPCs and the same chain.
type csvFiles struct {
	calls    *transcoder
	now      func() time.Time
	contacts accountv1.ContactServiceClient
	imports  accountv1.ContactImportServiceClient
}

func (f *csvFiles) register(top *http.ServeMux) {
	top.HandleFunc("POST "+importPath, f.importContacts)
	top.HandleFunc("GET /v1/contacts/export", f.exportContacts)
	top.HandleFunc("GET /v1/contacts/imports/{contact_import_id}/errors", f.exportErrors)
}

// importContacts sends a file to ImportContacts, piece by piece.
func (f *csvFiles) importContacts(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel() // a file that breaks off is not complete
	im, replayed, err := f.upload(ctx, r)
	if err != nil {
		writeError(w, r, err)
		return
	}
	body, err := Marshal(im)
	if err != nil {
		writeError(w, r, err)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Location", "/v1/contacts/imports/"+im.GetId())
	if replayed {
		h.Set("Idempotency-Replayed", "true")
	}
	w.WriteHeader(http.StatusCreated)
	_, _ = w.Write(body) // the client went away; the import goes on
}

func (f *csvFiles) upload(ctx context.Context, r *http.Request) (im *accountv1.ContactImport, replayed bool, err error) {
	settings, file, err := openUpload(r)
	if err != nil {
		return nil, false, err
	}
	if ctx, err = f.calls.annotate(ctx, r, accountv1.ContactImportService_ImportContacts_FullMethodName); err != nil {
		return nil, false, err
	}
	stream, err := f.imports.ImportContacts(ctx)
	if err != nil {
		return nil, false, err
	}
	settingsPart := &accountv1.ImportContactsRequest{Part: &accountv1.ImportContactsRequest_Settings{Settings: settings}}
	if err := sendFile(stream, settingsPart, file); err != nil {
		return nil, false, err
	}
	resp, err := stream.CloseAndRecv()
	if err != nil {
		return nil, false, err
	}
	header, err := stream.Header()
	if err != nil {
		return nil, false, err
	}
	return resp.GetContactImport(), len(header.Get("idempotency-replayed")) > 0, nil
}

// sendFile sends the settings and the file. When the service ends the call before,
// its answer tells why.
func sendFile(stream grpc.ClientStreamingClient[accountv1.ImportContactsRequest, accountv1.ImportContactsResponse], settings *accountv1.ImportContactsRequest, file io.Reader) error {
	err := stream.Send(settings)
	buf := make([]byte, uploadPiece)
	for err == nil {
		n, readErr := file.Read(buf)
		if n > 0 {
			err = stream.Send(&accountv1.ImportContactsRequest{Part: &accountv1.ImportContactsRequest_Data{Data: buf[:n]}})
		}
		if errors.Is(readErr, io.EOF) {
			break
		}
		if readErr != nil {
			return uploadError(readErr)
		}
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// uploadError tells of a body that cannot be read.
func uploadError(err error) error {
	var own *apierr.Error
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &own), errors.As(err, &tooLarge):
		return err
	case errors.Is(err, os.ErrDeadlineExceeded):
		return apierr.New(errorv1.Reason_REASON_DEADLINE_EXCEEDED, "the file came too slowly; continue with contact_import_id and offset")
	}
	return apierr.New(errorv1.Reason_REASON_INVALID_JSON, "the body cannot be read to its end").Wrap(err)
}

// csvTypes are what clients call a CSV file: RFC 7111, and what browsers send where
// spreadsheets are installed.
var csvTypes = []string{"text/csv", "application/csv", "application/vnd.ms-excel"}

// openUpload finds the settings and the file of an upload: text/csv with the
// settings in the query string, or multipart/form-data with fields before the file.
func openUpload(r *http.Request) (*accountv1.ContactImportSettings, io.Reader, error) {
	values := r.URL.Query()
	mt, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	switch {
	case r.Header.Get("Content-Type") == "", err == nil && slices.Contains(csvTypes, mt):
		settings, err := uploadSettings(values, params["charset"], "")
		return settings, r.Body, err
	case err == nil && mt == "multipart/form-data":
		head := &formHead{r: r.Body}
		head.rearm(maxFields)
		return openForm(head, multipart.NewReader(head, params["boundary"]), values)
	}
	return nil, nil, apierr.New(errorv1.Reason_REASON_UNSUPPORTED_MEDIA_TYPE, "the body must be text/csv or multipart/form-data")
}

// openForm reads the fields up to the file.
func openForm(head *formHead, form *multipart.Reader, values url.Values) (*accountv1.ContactImportSettings, io.Reader, error) {
	for {
		part, err := form.NextPart()
		if errors.Is(err, io.EOF) {
			return nil, nil, apierr.New(errorv1.Reason_REASON_VALIDATION_FAILED, "the request is not valid").
				WithFields(apierr.Field{Field: "file", Message: "the form has no file"})
		}
		if err != nil {
			return nil, nil, uploadError(err)
		}
		if part.FileName() != "" {
			head.file = true
			settings, err := uploadSettings(values, "", part.FileName())
			return settings, &formFile{Part: part, head: head, form: form}, err
		}
		value, err := io.ReadAll(part)
		if err != nil {
			return nil, nil, uploadError(err)
		}
		values.Add(part.FormName(), string(value))
	}
}

// formHead is a form outside its file. Whatever is in it, names, headers of parts and
// values, has room for so many bytes; the file is counted by its service.
type formHead struct {
	r    io.Reader
	left int
	file bool // the file is being read
}

// rearm counts from here on, besides what the reader of the form has read ahead.
func (h *formHead) rearm(most int) { h.file, h.left = false, most }

var errLargeForm = apierr.New(errorv1.Reason_REASON_PAYLOAD_TOO_LARGE, "the form is larger than 64 KiB without its file")

// Read implements io.Reader.
func (h *formHead) Read(p []byte) (int, error) {
	if h.file {
		return h.r.Read(p)
	}
	if h.left <= 0 {
		return 0, errLargeForm
	}
	n, err := h.r.Read(p[:min(len(p), h.left)])
	h.left -= n
	return n, err
}

// formFile is the file of a form; nothing may come after it, as its settings would
// come too late.
type formFile struct {
	*multipart.Part
	head *formHead
	form *multipart.Reader
}

// Read implements io.Reader.
func (f *formFile) Read(p []byte) (int, error) {
	n, err := f.Part.Read(p)
	if !errors.Is(err, io.EOF) {
		return n, err
	}
	f.head.rearm(maxAfter)
	switch _, after := f.form.NextPart(); {
	case after == nil:
		return n, apierr.New(errorv1.Reason_REASON_UNKNOWN_PARAMETER, "the file must be the last part of the form")
	case !errors.Is(after, io.EOF):
		return n, after
	}
	return n, io.EOF
}

// uploadSettings reads the settings from parameters; what the parts of HTTP say
// counts where they say nothing.
func uploadSettings(values url.Values, charset, fileName string) (*accountv1.ContactImportSettings, error) {
	s := &accountv1.ContactImportSettings{}
	if err := (queryParser{}).Parse(s, values, utilities.NewDoubleArray(nil)); err != nil {
		return nil, err
	}
	if s.GetEncoding() == "" {
		s.Encoding = charset
	}
	if s.GetFileName() == "" {
		s.FileName = fileName
	}
	return s, nil
}

func (f *csvFiles) exportContacts(w http.ResponseWriter, r *http.Request) {
	req := &accountv1.ExportContactsRequest{}
	ctx, err := f.calls.annotate(r.Context(), r, accountv1.ContactService_ExportContacts_FullMethodName)
	if err == nil {
		err = (queryParser{}).Parse(req, r.URL.Query(), utilities.NewDoubleArray(nil))
	}
	if err != nil {
		writeError(w, r, err)
		return
	}
	stream, err := f.contacts.ExportContacts(ctx, req)
	download(f, w, r, "contacts.csv", stream, err)
}

func (f *csvFiles) exportErrors(w http.ResponseWriter, r *http.Request) {
	ctx, err := f.calls.annotate(r.Context(), r, accountv1.ContactImportService_ExportContactImportErrors_FullMethodName)
	if err != nil {
		writeError(w, r, err)
		return
	}
	stream, err := f.imports.ExportContactImportErrors(ctx, &accountv1.ExportContactImportErrorsRequest{ContactImportId: r.PathValue("contact_import_id")})
	download(f, w, r, "contact-import-errors.csv", stream, err)
}

// piece is a message of a file that is downloaded.
type piece interface{ GetData() []byte }

// download answers with the bytes of a stream. A failure after the first of them
// breaks the connection off: a file that only looks complete would be worse.
func download[T any, P interface {
	*T
	piece
}](f *csvFiles, w http.ResponseWriter, r *http.Request, name string, stream grpc.ServerStreamingClient[T], err error) {
	next := func() ([]byte, error) {
		m, err := stream.Recv()
		if err != nil {
			return nil, err
		}
		return P(m).GetData(), nil
	}
	var data []byte
	if err == nil {
		data, err = next()
	}
	if err != nil {
		writeError(w, r, err)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/csv; charset=utf-8")
	h.Set("Content-Disposition", `attachment; filename="`+name+`"`)
	h.Set("Cache-Control", "no-store")
	rc := http.NewResponseController(w)
	for err == nil {
		_ = rc.SetWriteDeadline(f.now().Add(idleLimit)) // a writer without deadlines (tests) is served without
		if _, err = w.Write(data); err == nil {
			data, err = next()
		}
	}
	if !errors.Is(err, io.EOF) {
		panic(http.ErrAbortHandler)
	}
}
