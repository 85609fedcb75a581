package app_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/structpb"

	accountv1 "github.com/turumba/turumba/gen/turumba/account/v1"
)

// exported is the export of all contacts.
func (w *world) exported(t *testing.T, ctx context.Context, bom bool) string {
	t.Helper()
	stream, err := w.contacts.ExportContacts(ctx, &accountv1.ExportContactsRequest{Bom: bom})
	require.NoError(t, err)
	var file bytes.Buffer
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return file.String()
		}
		require.NoError(t, err)
		file.Write(m.GetData())
	}
}

// TestOurOwnExport: an export that is imported makes nobody, rejects nobody and changes
// nothing; one in which a name was corrected changes that name.
func TestOurOwnExport(t *testing.T) {
	t.Parallel()
	w := start(t)
	owner, _, _ := w.signUp(t, "owner@example.org")
	meta, err := structpb.NewStruct(map[string]any{"city": "Adama", "age": 30, "a.b": "x", "list": []any{"one", 2}})
	require.NoError(t, err)
	for _, c := range []*accountv1.CreateContactRequest{
		{FirstName: "Abebe", LastName: "Bikila", Email: "Abebe@Example.org", Phone: "+251911000001", Tags: []string{"a", "b,c"}, Metadata: meta},
		{Name: "Name only"},
		{FirstName: "First only"},
		{Identifiers: map[string]string{"telegram": "77"}},
		{Name: "=HYPERLINK(1)", ExternalId: "'=7", Language: "am", Timezone: "Africa/Addis_Ababa", PreferredChannelType: "telegram"},
		{Name: "two\nlines \"quoted\"", Email: "kontakt@m\u00fcnchen.example"},
	} {
		_, err := w.contacts.CreateContact(owner, c)
		require.NoError(t, err)
	}
	all := func() []*accountv1.Contact {
		list, err := w.contacts.ListContacts(owner, &accountv1.ListContactsRequest{Sort: []string{"created_at:asc"}})
		require.NoError(t, err)
		for _, c := range list.GetData() {
			c.UpdatedAt = nil
		}
		return list.GetData()
	}
	before := all()
	for _, bom := range []bool{false, true} {
		file := w.exported(t, owner, bom)
		require.Equal(t, bom, strings.HasPrefix(file, "\ufeff"))
		im := w.imported(t, owner, &accountv1.ContactImportSettings{}, file)
		require.Equal(t, []int32{0, 6, 0}, counts(im), "%v", im)
		require.EqualExportedValues(t, before, all())
	}
	file := strings.Replace(w.exported(t, owner, false), ",Abebe,Bikila,", ",Abel,Bikila,", 1)
	im := w.imported(t, owner, &accountv1.ContactImportSettings{}, file)
	require.Equal(t, []int32{0, 6, 0}, counts(im))
	require.Equal(t, "Abel Bikila", all()[0].GetName(), "the name that is made of both")

	stranger, _, _ := w.signUp(t, "stranger@example.org")
	im = w.imported(t, stranger, &accountv1.ContactImportSettings{}, strings.ReplaceAll(file, "Abel", "Taken"))
	require.Equal(t, []int32{6, 0, 0}, counts(im), "ids of another account are nobody's here")
	require.Equal(t, "Abel Bikila", all()[0].GetName())
}

// TestCodesWithBlanks: a code is good as people copy and group it.
func TestCodesWithBlanks(t *testing.T) {
	t.Parallel()
	w := start(t)
	for i, spell := range []func(code string) string{
		func(c string) string { return " " + c + " " },
		func(c string) string { return c[:3] + " " + c[3:] },
		func(c string) string { return c[:3] + "-" + c[3:] },
		func(c string) string { return strings.Join(strings.Split(c, ""), " ") },
	} {
		to := fmt.Sprintf("code%d@example.org", i)
		r, err := w.auth.Register(t.Context(), &accountv1.RegisterRequest{Email: to, Password: password, FullName: "A B", AccountName: "A"})
		require.NoError(t, err)
		code := spell(sixDigitsOf(w.mail.next(t, to)))
		_, err = w.auth.VerifyEmail(t.Context(), &accountv1.VerifyEmailRequest{Email: to, Code: code, RegistrationToken: r.GetRegistrationToken()})
		require.NoError(t, err, "%q", code)
	}
}
