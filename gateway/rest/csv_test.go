package rest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	accountv1 "github.com/turumba/turumba/gen/turumba/account/v1"
	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/telemetry"
)

// files is the far side of the routes of files: it keeps what was uploaded and
// sends what is to be downloaded.
type files struct {
	settings *accountv1.ContactImportSettings
	data     bytes.Buffer
	complete bool // the upload was closed, not broken off
	md       metadata.MD
	pieces   []string
	fails    error // after the pieces
}

func (f *files) Invoke(context.Context, string, any, any, ...grpc.CallOption) error {
	return apierr.NotFound("nothing")
}

// Admit lets in whoever has a token.
func (f *files) Admit(ctx context.Context, _ string) error {
	if md, _ := metadata.FromOutgoingContext(ctx); strings.Join(md.Get("authorization"), "") == "" {
		return apierr.Unauthenticated(errors.New("no token"))
	}
	return nil
}

func (f *files) NewStream(ctx context.Context, _ *grpc.StreamDesc, _ string, _ ...grpc.CallOption) (grpc.ClientStream, error) {
	f.md, _ = metadata.FromOutgoingContext(ctx)
	return &fileStream{files: f, ctx: ctx}, nil
}

type fileStream struct {
	*files
	ctx context.Context
}

func (f *fileStream) Header() (metadata.MD, error) {
	return metadata.Pairs("idempotency-replayed", "true"), nil
}
func (f *fileStream) Trailer() metadata.MD     { return nil }
func (f *fileStream) CloseSend() error         { f.complete = true; return nil }
func (f *fileStream) Context() context.Context { return f.ctx }

func (f *fileStream) SendMsg(m any) error {
	if req, ok := m.(*accountv1.ImportContactsRequest); ok {
		if s := req.GetSettings(); s != nil {
			f.settings = s
		}
		f.data.Write(req.GetData())
	}
	return nil
}

func (f *fileStream) RecvMsg(m any) error {
	switch m := m.(type) {
	case *accountv1.ImportContactsResponse:
		m.ContactImport = &accountv1.ContactImport{Id: "im-1", Status: accountv1.ContactImportStatus_CONTACT_IMPORT_STATUS_QUEUED}
		return nil
	case *accountv1.ExportContactsResponse:
		if len(f.pieces) == 0 {
			if f.fails != nil {
				return f.fails
			}
			return io.EOF
		}
		m.Data, f.pieces = []byte(f.pieces[0]), f.pieces[1:]
		return nil
	}
	return io.EOF
}

func (f *files) handler(t *testing.T) http.Handler {
	t.Helper()
	h, err := NewHandler(t.Context(), Config{Backends: Backends{Account: f, Messaging: f}, Logger: telemetry.Discard(), Clock: clock.System()})
	require.NoError(t, err)
	return h
}

func form(t *testing.T, build func(w *multipart.Writer)) (body, contentType string) {
	t.Helper()
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	build(w)
	require.NoError(t, w.Close())
	return b.String(), w.FormDataContentType()
}

func TestUpload(t *testing.T) {
	t.Parallel()
	const csv = "name,email\nA,a@b.example\n"
	want := &accountv1.ContactImportSettings{
		FileName: "people.csv", DryRun: true, Encoding: "windows-1252", Mapping: map[string]string{"a:b": "name", "c": ""},
		MatchBy: []accountv1.ContactKey{accountv1.ContactKey_CONTACT_KEY_EMAIL, accountv1.ContactKey_CONTACT_KEY_PHONE},
	}
	settings := [][2]string{{"dry_run", "true"}, {"mapping", "a:b:name"}, {"mapping", "c:"}, {"match_by", "email"}, {"match_by", "phone"}}

	f := &files{}
	res := do(f.handler(t), http.MethodPost, "/v1/contacts/import/?file_name=people.csv&dry_run=true&mapping=a:b:name&mapping=c:&match_by=email&match_by=phone", csv,
		"Content-Type", "text/csv; charset=windows-1252", "Authorization", "Bearer x", "Idempotency-Key", "k")
	require.Equal(t, http.StatusCreated, res.Code, res.Body)
	require.True(t, proto.Equal(want, f.settings), "%v", f.settings)
	require.Equal(t, csv, f.data.String())
	require.True(t, f.complete)
	require.Equal(t, []string{"Bearer x"}, f.md.Get("authorization"))
	require.Equal(t, []string{"k"}, f.md.Get("idempotency-key"))
	require.Equal(t, "/v1/contacts/imports/im-1", res.Header().Get("Location"))
	require.Equal(t, "true", res.Header().Get("Idempotency-Replayed"))
	require.Contains(t, res.Body.String(), `"status":"queued"`)

	f = &files{}
	body, contentType := form(t, func(w *multipart.Writer) {
		for _, s := range settings {
			require.NoError(t, w.WriteField(s[0], s[1]))
		}
		require.NoError(t, w.WriteField("encoding", "windows-1252"))
		part, err := w.CreateFormFile("file", "people.csv")
		require.NoError(t, err)
		_, err = part.Write([]byte(csv))
		require.NoError(t, err)
	})
	res = do(f.handler(t), http.MethodPost, importPath, body, "Content-Type", contentType, "Authorization", "Bearer x")
	require.Equal(t, http.StatusCreated, res.Code, res.Body)
	require.True(t, proto.Equal(want, f.settings), "%v", f.settings)
	require.Equal(t, csv, f.data.String())
}

// TestUploadTypes: browsers call a CSV file what the spreadsheet of the machine calls it.
func TestUploadTypes(t *testing.T) {
	t.Parallel()
	for _, mt := range []string{"", "text/csv", "text/csv; charset=utf-8", "application/csv", "application/vnd.ms-excel"} {
		f := &files{}
		headers := []string{"Authorization", "Bearer x"}
		if mt != "" {
			headers = append(headers, "Content-Type", mt)
		}
		res := do(f.handler(t), http.MethodPost, importPath, "name\nA\n", headers...)
		require.Equal(t, http.StatusCreated, res.Code, "%s: %s", mt, res.Body)
	}
}

func TestUploadRefusals(t *testing.T) {
	t.Parallel()
	file := func(w *multipart.Writer) {
		part, _ := w.CreateFormFile("file", "a.csv")
		_, _ = part.Write([]byte("name\nA\n"))
	}
	late, lateType := form(t, func(w *multipart.Writer) { file(w); _ = w.WriteField("dry_run", "true") })
	none, noneType := form(t, func(w *multipart.Writer) { _ = w.WriteField("dry_run", "true") })
	large, largeType := form(t, func(w *multipart.Writer) { _ = w.WriteField("mapping", strings.Repeat("x", maxFields+1)); file(w) })
	cut, cutType := form(t, file)
	for name, c := range map[string]struct {
		target, body, contentType string
		status                    int
		reason                    errorv1.Reason
	}{
		"JSON":                   {importPath, "{}", "application/json", 415, errorv1.Reason_REASON_UNSUPPORTED_MEDIA_TYPE},
		"unknown setting":        {importPath + "?colour=blue", "name\n", "text/csv", 400, errorv1.Reason_REASON_UNKNOWN_PARAMETER},
		"setting twice":          {importPath + "?dry_run=true&dry_run=true", "name\n", "text/csv", 400, errorv1.Reason_REASON_UNKNOWN_PARAMETER},
		"mapping without field":  {importPath + "?mapping=x", "name\n", "text/csv", 400, errorv1.Reason_REASON_UNKNOWN_PARAMETER},
		"mapping twice":          {importPath + "?mapping=x:name&mapping=x:email", "name\n", "text/csv", 400, errorv1.Reason_REASON_UNKNOWN_PARAMETER},
		"a field after the file": {importPath, late, lateType, 400, errorv1.Reason_REASON_UNKNOWN_PARAMETER},
		"no file":                {importPath, none, noneType, 422, errorv1.Reason_REASON_VALIDATION_FAILED},
		"large fields":           {importPath, large, largeType, 413, errorv1.Reason_REASON_PAYLOAD_TOO_LARGE},
		"a form that is cut":     {importPath, cut[:len(cut)-30], cutType, 400, errorv1.Reason_REASON_INVALID_JSON},
		"a form without border":  {importPath, cut, "multipart/form-data", 400, errorv1.Reason_REASON_INVALID_JSON},
	} {
		f := &files{}
		res := do(f.handler(t), http.MethodPost, c.target, c.body, "Content-Type", c.contentType, "Authorization", "Bearer x")
		require.Equal(t, c.status, res.Code, "%s: %s", name, res.Body)
		require.Contains(t, res.Body.String(), apierr.Name(c.reason), name)
		require.False(t, f.complete, "%s: a file that breaks off is not complete", name)
	}
	res := do((&files{}).handler(t), http.MethodPost, importPath, "name\n", "Content-Type", "text/csv", "Content-Encoding", "gzip", "Authorization", "Bearer x")
	require.Equal(t, http.StatusUnsupportedMediaType, res.Code)
	res = do((&files{}).handler(t), http.MethodPost, importPath, "{}", "Content-Type", "application/json")
	require.Equal(t, http.StatusUnauthorized, res.Code, "without a token no byte is read")
}

func TestDownload(t *testing.T) {
	t.Parallel()
	res := do((&files{pieces: []string{"a\r\n", "b\r\n"}}).handler(t), http.MethodGet, "/v1/contacts/export?column=name", "")
	require.Equal(t, http.StatusOK, res.Code)
	require.Equal(t, "a\r\nb\r\n", res.Body.String())
	require.Equal(t, "text/csv; charset=utf-8", res.Header().Get("Content-Type"))
	require.Equal(t, `attachment; filename="contacts.csv"`, res.Header().Get("Content-Disposition"))

	res = do((&files{fails: apierr.NotFound("x")}).handler(t), http.MethodGet, "/v1/contacts/export", "")
	require.Equal(t, http.StatusNotFound, res.Code)
	res = do((&files{}).handler(t), http.MethodGet, "/v1/contacts/export?limit=3", "")
	require.Equal(t, http.StatusBadRequest, res.Code)

	// A failure in the middle cuts the connection: half a file must not look whole.
	server := httptest.NewServer((&files{pieces: []string{"a\r\n"}, fails: apierr.NotFound("x")}).handler(t))
	t.Cleanup(server.Close)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+"/v1/contacts/export", nil)
	require.NoError(t, err)
	got, err := server.Client().Do(req)
	if err == nil {
		_, err = io.ReadAll(got.Body)
		require.NoError(t, got.Body.Close())
	}
	require.Error(t, err)
}
