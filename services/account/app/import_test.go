package app_test

import (
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/metadata"

	accountv1 "github.com/turumba/turumba/gen/turumba/account/v1"
	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
)

// upload sends a file in pieces and returns the import.
func (w *world) upload(ctx context.Context, set *accountv1.ContactImportSettings, file string) (*accountv1.ContactImport, error) {
	stream, err := accountv1.NewContactImportServiceClient(w.conn).ImportContacts(ctx)
	if err != nil {
		return nil, err
	}
	err = stream.Send(&accountv1.ImportContactsRequest{Part: &accountv1.ImportContactsRequest_Settings{Settings: set}})
	for data := []byte(file); err == nil && len(data) > 0; {
		n := min(len(data), 100_000)
		err = stream.Send(&accountv1.ImportContactsRequest{Part: &accountv1.ImportContactsRequest_Data{Data: data[:n]}})
		data = data[n:]
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	resp, err := stream.CloseAndRecv()
	return resp.GetContactImport(), err
}

// imported uploads a file and waits for its end.
func (w *world) imported(t *testing.T, ctx context.Context, set *accountv1.ContactImportSettings, file string) *accountv1.ContactImport {
	t.Helper()
	im, err := w.upload(ctx, set, file)
	require.NoError(t, err)
	return w.ended(t, ctx, im.GetId())
}

func (w *world) ended(t *testing.T, ctx context.Context, id string) *accountv1.ContactImport {
	t.Helper()
	var im *accountv1.ContactImport
	require.Eventually(t, func() bool {
		resp, err := accountv1.NewContactImportServiceClient(w.conn).GetContactImport(ctx, &accountv1.GetContactImportRequest{ContactImportId: id})
		im = resp.GetContactImport()
		return err == nil && im.GetFinishedAt() != nil
	}, time.Minute, 10*time.Millisecond)
	return im
}

// counts is what became of the rows: created, updated, rejected.
func counts(im *accountv1.ContactImport) []int32 {
	return []int32{im.GetCreatedCount(), im.GetUpdatedCount(), im.GetRejectedCount()}
}

// rejected is the errors file of an import.
func (w *world) rejected(t *testing.T, ctx context.Context, id string) [][]string {
	t.Helper()
	stream, err := accountv1.NewContactImportServiceClient(w.conn).ExportContactImportErrors(ctx, &accountv1.ExportContactImportErrorsRequest{ContactImportId: id})
	require.NoError(t, err)
	var file bytes.Buffer
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		file.Write(m.GetData())
	}
	rows, err := csv.NewReader(&file).ReadAll()
	require.NoError(t, err)
	return rows
}

func TestImport(t *testing.T) {
	t.Parallel()
	w := start(t)
	owner, _, accountID := w.signUp(t, "owner@example.org")
	group, err := w.groups.CreateContactGroup(owner, &accountv1.CreateContactGroupRequest{Name: "Imported"})
	require.NoError(t, err)
	_, err = w.contacts.CreateContact(owner, &accountv1.CreateContactRequest{Name: "Old", Phone: "+251911000001", Email: "old@x.example", Tags: []string{"kept"}})
	require.NoError(t, err)
	_, err = w.contacts.CreateContact(owner, &accountv1.CreateContactRequest{Name: "Other", Phone: "+251911000002"})
	require.NoError(t, err)

	file := "Name;Phone;E-Mail;Tags;City\n" +
		"New;+251911000003;new@x.example;a,b;Adama\n" + // created
		"Old again;+251911000001;;vip;Addis\n" + // updated by phone
		"New again;;NEW@x.example;c;\n" + // updated: made two rows before
		"Clash;+251911000002;old@x.example;;\n" + // the phone of one, the e-mail of another
		"Bad;12;;;\n" +
		";;not an address;;\n" +
		";;;;\n" + // no row at all
		"=Formula;;f@x.example;;\n"
	set := &accountv1.ContactImportSettings{FileName: "people.csv", ContactGroupIds: []string{group.GetContactGroup().GetId()}, DryRun: true}
	dry := w.imported(t, owner, set, file)
	require.Equal(t, accountv1.ContactImportStatus_CONTACT_IMPORT_STATUS_COMPLETED, dry.GetStatus(), dry.GetErrorMessage())
	require.Equal(t, []int32{2, 2, 3}, counts(dry))
	list, err := w.contacts.ListContacts(owner, &accountv1.ListContactsRequest{})
	require.NoError(t, err)
	require.Len(t, list.GetData(), 2, "a dry run stores nothing")

	set.DryRun = false
	im := w.imported(t, owner, set, file)
	require.Equal(t, accountv1.ContactImportStatus_CONTACT_IMPORT_STATUS_COMPLETED, im.GetStatus(), im.GetErrorMessage())
	require.Equal(t, []int32{2, 2, 3}, counts(im))
	require.EqualValues(t, 7, im.GetRowCount())
	require.EqualValues(t, len(file), im.GetReceivedBytes())
	require.Equal(t, im.GetReceivedBytes(), im.GetProcessedBytes())
	require.Equal(t, ";", im.GetDelimiter())
	require.Equal(t, accountID, im.GetAccountId())
	one := func(filter string) *accountv1.Contact {
		list, err := w.contacts.ListContacts(owner, &accountv1.ListContactsRequest{Filter: []string{filter}})
		require.NoError(t, err)
		require.Len(t, list.GetData(), 1, filter)
		return list.GetData()[0]
	}
	old := one("phone:eq:+251911000001")
	require.Equal(t, "Old again", old.GetName())
	require.Equal(t, "old@x.example", old.GetEmail(), "an empty cell changes nothing")
	require.Equal(t, []string{"kept", "vip"}, old.GetTags())
	require.Equal(t, map[string]any{"city": "Addis"}, old.GetMetadata().AsMap())
	fresh := one("email:eq:new@x.example")
	require.Equal(t, "New again", fresh.GetName())
	require.Equal(t, []string{"a", "b", "c"}, fresh.GetTags())
	members, err := w.groups.ListGroupContacts(owner, &accountv1.ListGroupContactsRequest{ContactGroupId: group.GetContactGroup().GetId()})
	require.NoError(t, err)
	require.Len(t, members.GetData(), 3)

	rows := w.rejected(t, owner, im.GetId())
	require.Equal(t, []string{"line", "code", "field", "message", "Name", "Phone", "E-Mail", "Tags", "City"}, rows[0])
	require.Len(t, rows, 4)
	for i, want := range [][]string{{"5", "DUPLICATE_EMAIL", ""}, {"6", "VALIDATION_FAILED", "phone"}, {"7", "VALIDATION_FAILED", "email"}} {
		require.Equal(t, want, rows[i+1][:3])
	}
	require.Equal(t, []string{"Clash", "+251911000002", "old@x.example", "", ""}, rows[1][4:])

	events, err := accountv1.NewAuditEventServiceClient(w.conn).ListAuditEvents(owner, &accountv1.ListAuditEventsRequest{Filter: []string{"resource_id:eq:" + im.GetId()}, Sort: []string{"created_at:asc"}})
	require.NoError(t, err)
	require.Len(t, events.GetData(), 2)
	require.Equal(t, "contact_import.create", events.GetData()[0].GetAction())
	require.Equal(t, "contact_import.finish", events.GetData()[1].GetAction())

	// The export of the account is imported as nothing but updates.
	export, err := w.contacts.ExportContacts(owner, &accountv1.ExportContactsRequest{})
	require.NoError(t, err)
	var out strings.Builder
	for {
		m, err := export.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		out.Write(m.GetData())
	}
	require.Contains(t, out.String(), "'=Formula")
	again := w.imported(t, owner, &accountv1.ContactImportSettings{}, out.String())
	require.Equal(t, []int32{0, 4, 0}, counts(again))
	require.Equal(t, "=Formula", one("email:eq:f@x.example").GetName())
}

func TestImportRefusals(t *testing.T) {
	t.Parallel()
	w := start(t)
	owner, _, accountID := w.signUp(t, "owner@example.org")
	stranger, _, _ := w.signUp(t, "stranger@example.org")
	foreign, err := w.groups.CreateContactGroup(stranger, &accountv1.CreateContactGroupRequest{Name: "Theirs"})
	require.NoError(t, err)
	for name, c := range map[string]struct {
		ctx    context.Context
		set    *accountv1.ContactImportSettings
		file   string
		reason errorv1.Reason
	}{
		"foreign account": {stranger, &accountv1.ContactImportSettings{AccountId: accountID}, "name\nA\n", errorv1.Reason_REASON_NOT_FOUND},
		"foreign group":   {owner, &accountv1.ContactImportSettings{ContactGroupIds: []string{foreign.GetContactGroup().GetId()}}, "name\nA\n", errorv1.Reason_REASON_NOT_FOUND},
		"empty file":      {owner, &accountv1.ContactImportSettings{}, "", errorv1.Reason_REASON_VALIDATION_FAILED},
		"no column":       {owner, &accountv1.ContactImportSettings{}, "city\nAdama\n", errorv1.Reason_REASON_VALIDATION_FAILED},
		"unknown column":  {owner, &accountv1.ContactImportSettings{Mapping: map[string]string{"x": "name"}}, "name\nA\n", errorv1.Reason_REASON_VALIDATION_FAILED},
		"unknown import":  {owner, &accountv1.ContactImportSettings{ContactImportId: accountID}, "name\nA\n", errorv1.Reason_REASON_NOT_FOUND},
		"offset alone":    {owner, &accountv1.ContactImportSettings{Offset: 7}, "name\nA\n", errorv1.Reason_REASON_VALIDATION_FAILED},
	} {
		_, err := w.upload(c.ctx, c.set, c.file)
		require.Error(t, err, name)
		require.Equal(t, c.reason, apierr.From(err).Reason, "%s: %v", name, err)
	}
	imports := accountv1.NewContactImportServiceClient(w.conn)
	list, err := imports.ListContactImports(owner, &accountv1.ListContactImportsRequest{})
	require.NoError(t, err)
	require.Empty(t, list.GetData(), "nothing is kept of them")

	// A file that is no table in its middle fails there, a quote too many costs its line.
	im := w.imported(t, owner, &accountv1.ContactImportSettings{}, "name,email\nA,a@b.example\nopen,"+strings.Repeat("x", 2<<20))
	require.Equal(t, accountv1.ContactImportStatus_CONTACT_IMPORT_STATUS_FAILED, im.GetStatus())
	require.Contains(t, im.GetErrorMessage(), "larger than 1 MiB")
	require.Equal(t, []int32{1, 0, 0}, counts(im))
	im = w.imported(t, owner, &accountv1.ContactImportSettings{}, "name,email\nA2,a2@b.example\n\"open,o@b.example\nB,b@b.example\nC\n")
	require.Equal(t, accountv1.ContactImportStatus_CONTACT_IMPORT_STATUS_COMPLETED, im.GetStatus())
	require.Equal(t, []int32{3, 0, 1}, counts(im))
	_, err = imports.CancelContactImport(owner, &accountv1.CancelContactImportRequest{ContactImportId: im.GetId()})
	reason(t, errorv1.Reason_REASON_INVALID_STATE, err)
}

// TestUploadContinues: an upload that broke goes on where it ended, and a repeated
// one is the same import.
func TestUploadContinues(t *testing.T) {
	t.Parallel()
	w := start(t)
	owner, _, _ := w.signUp(t, "owner@example.org")
	imports := accountv1.NewContactImportServiceClient(w.conn)
	var b strings.Builder
	b.WriteString("name,email\n")
	for i := range 20_000 {
		fmt.Fprintf(&b, "Person %d of the school by the river with the long name,p%d@x.example\n", i, i)
	}
	file := b.String()
	const part, sent = 300_000, 4 * 300_000 // just over what is stored at once

	ctx, cancel := context.WithCancel(owner)
	stream, err := imports.ImportContacts(ctx)
	require.NoError(t, err)
	require.NoError(t, stream.Send(&accountv1.ImportContactsRequest{Part: &accountv1.ImportContactsRequest_Settings{Settings: &accountv1.ContactImportSettings{}}}))
	for from := 0; from < sent; from += part {
		require.NoError(t, stream.Send(&accountv1.ImportContactsRequest{Part: &accountv1.ImportContactsRequest_Data{Data: []byte(file[from : from+part])}}))
	}
	var broken *accountv1.ContactImport
	uploading := func(bytes int32) func() bool {
		return func() bool {
			list, err := imports.ListContactImports(owner, &accountv1.ListContactImportsRequest{Filter: []string{"status:eq:uploading"}})
			if err != nil || len(list.GetData()) != 1 {
				return false
			}
			broken = list.GetData()[0]
			return broken.GetReceivedBytes() >= bytes
		}
	}
	require.Eventually(t, uploading(1), time.Minute, 10*time.Millisecond) // all has arrived
	cancel()
	require.Eventually(t, uploading(sent), time.Minute, 10*time.Millisecond)
	require.EqualValues(t, sent, broken.GetReceivedBytes())
	_, err = w.upload(owner, &accountv1.ContactImportSettings{ContactImportId: broken.GetId(), Offset: 5}, "x")
	reason(t, errorv1.Reason_REASON_CONFLICT, err)
	require.Contains(t, err.Error(), "1200000 bytes")
	im := w.imported(t, owner, &accountv1.ContactImportSettings{ContactImportId: broken.GetId(), Offset: broken.GetReceivedBytes()}, file[sent:])
	require.Equal(t, []int32{20_000, 0, 0}, counts(im))

	keyed := metadata.AppendToOutgoingContext(owner, "idempotency-key", "file-1")
	first, err := w.upload(keyed, &accountv1.ContactImportSettings{}, file)
	require.NoError(t, err)
	second, err := w.upload(keyed, &accountv1.ContactImportSettings{}, file)
	require.NoError(t, err)
	require.Equal(t, first.GetId(), second.GetId())
	_, err = w.upload(keyed, &accountv1.ContactImportSettings{DryRun: true}, file)
	reason(t, errorv1.Reason_REASON_IDEMPOTENCY_KEY_REUSED, err)
	require.Equal(t, []int32{0, 20_000, 0}, counts(w.ended(t, owner, first.GetId())))
}

// TestImportRivals: a key that goes from one contact to another within a batch, and
// contacts that are written meanwhile.
func TestImportRivals(t *testing.T) {
	t.Parallel()
	w := start(t)
	owner, _, _ := w.signUp(t, "owner@example.org")
	for _, id := range []string{"a", "b", "c"} {
		_, err := w.contacts.CreateContact(owner, &accountv1.CreateContactRequest{ExternalId: id, Email: id + "@x.example"})
		require.NoError(t, err)
	}
	im := w.imported(t, owner, &accountv1.ContactImportSettings{},
		"external_id,email\nc,d@x.example\nb,c@x.example\na,b@x.example\nnew,a@x.example\n")
	require.Equal(t, []int32{1, 3, 0}, counts(im))
	list, err := w.contacts.ListContacts(owner, &accountv1.ListContactsRequest{Filter: []string{"email:eq:b@x.example"}})
	require.NoError(t, err)
	require.Equal(t, "a", list.GetData()[0].GetExternalId())

	var b strings.Builder
	b.WriteString("name,email\n")
	for i := range 5000 {
		fmt.Fprintf(&b, "Person,r%d@x.example\n", i)
	}
	queued, err := w.upload(owner, &accountv1.ContactImportSettings{}, b.String())
	require.NoError(t, err)
	made := int32(0)
	for i := 4999; i >= 0; i -= 7 {
		_, err := w.contacts.CreateContact(owner, &accountv1.CreateContactRequest{Email: fmt.Sprintf("r%d@x.example", i)})
		if err == nil {
			made++
			continue
		}
		reason(t, errorv1.Reason_REASON_DUPLICATE_EMAIL, err)
	}
	ended := w.ended(t, owner, queued.GetId())
	require.Equal(t, []int32{5000 - made, made, 0}, counts(ended))
}

func TestImportCancel(t *testing.T) {
	t.Parallel()
	w := start(t)
	owner, _, _ := w.signUp(t, "owner@example.org")
	imports := accountv1.NewContactImportServiceClient(w.conn)
	var b strings.Builder
	b.WriteString("name,email\n")
	for i := range 60_000 {
		fmt.Fprintf(&b, "Person,r%d@x.example\n", i)
	}
	im, err := w.upload(owner, &accountv1.ContactImportSettings{}, b.String())
	require.NoError(t, err)
	cancelled, err := imports.CancelContactImport(owner, &accountv1.CancelContactImportRequest{ContactImportId: im.GetId()})
	require.NoError(t, err)
	require.Equal(t, accountv1.ContactImportStatus_CONTACT_IMPORT_STATUS_CANCELLED, cancelled.GetContactImport().GetStatus())
	watch, err := imports.WatchContactImport(owner, &accountv1.WatchContactImportRequest{ContactImportId: im.GetId()})
	require.NoError(t, err)
	seen, err := watch.Recv()
	require.NoError(t, err)
	require.NotNil(t, seen.GetContactImport().GetFinishedAt())
	_, err = watch.Recv()
	require.ErrorIs(t, err, io.EOF)
	contacts, err := w.contacts.ListContacts(owner, &accountv1.ListContactsRequest{Limit: 1})
	require.NoError(t, err)
	require.Less(t, contacts.GetMeta().GetTotal(), int32(60_000))
}

// TestImportWarns: what a file may not mean is said with the import, and a group that is
// deleted while the file arrives is named when it ends.
func TestImportWarns(t *testing.T) {
	t.Parallel()
	w := start(t)
	owner, _, _ := w.signUp(t, "owner@example.org")
	im := w.imported(t, owner, &accountv1.ContactImportSettings{}, "Name,Erreichbar\nJ\xf6rg,+251 911 000 001\n")
	require.Len(t, im.GetWarnings(), 2)
	require.Equal(t, []string{"encoding_uncertain", "windows-1250"}, []string{im.GetWarnings()[0].GetCode(), im.GetWarnings()[0].GetAlternative()})
	require.Equal(t, []string{"column_unknown", "Erreichbar", "phone"}, []string{im.GetWarnings()[1].GetCode(), im.GetWarnings()[1].GetColumn(), im.GetWarnings()[1].GetAlternative()})
	plain := w.imported(t, owner, &accountv1.ContactImportSettings{}, "name,phone\nJorg,+251911000001\n")
	require.Empty(t, plain.GetWarnings())
	late := w.imported(t, owner, &accountv1.ContactImportSettings{DryRun: true}, "name,phone\n"+strings.Repeat("Jorg,+251911000001\n", 5000)+"J\xf6rg,+251911000001\n")
	require.Len(t, late.GetWarnings(), 1)
	require.Equal(t, "encoding_damaged", late.GetWarnings()[0].GetCode())
}

func TestImportIntoADeletedGroup(t *testing.T) {
	t.Parallel()
	w := start(t)
	owner, _, _ := w.signUp(t, "owner@example.org")
	group := func(name string) string {
		resp, err := w.groups.CreateContactGroup(owner, &accountv1.CreateContactGroupRequest{Name: name})
		require.NoError(t, err)
		return resp.GetContactGroup().GetId()
	}
	gone, stays := group("Gone"), group("Stays")
	imports := accountv1.NewContactImportServiceClient(w.conn)
	stream, err := imports.ImportContacts(owner)
	require.NoError(t, err)
	set := &accountv1.ContactImportSettings{ContactGroupIds: []string{gone, stays}}
	require.NoError(t, stream.Send(&accountv1.ImportContactsRequest{Part: &accountv1.ImportContactsRequest_Settings{Settings: set}}))
	file := "name,phone\nJorg,+251911000001\n" + strings.Repeat("\n", 100_000)
	require.NoError(t, stream.Send(&accountv1.ImportContactsRequest{Part: &accountv1.ImportContactsRequest_Data{Data: []byte(file)}}))
	require.Eventually(t, func() bool {
		list, err := imports.ListContactImports(owner, &accountv1.ListContactImportsRequest{Filter: []string{"status:eq:uploading"}})
		return err == nil && len(list.GetData()) == 1
	}, time.Minute, 10*time.Millisecond)
	_, err = w.groups.DeleteContactGroup(owner, &accountv1.DeleteContactGroupRequest{ContactGroupId: gone})
	require.NoError(t, err)
	resp, err := stream.CloseAndRecv()
	require.NoError(t, err)
	im := w.ended(t, owner, resp.GetContactImport().GetId())
	require.Equal(t, accountv1.ContactImportStatus_CONTACT_IMPORT_STATUS_COMPLETED, im.GetStatus())
	require.Equal(t, []int32{1, 0, 0}, counts(im))
	require.Len(t, im.GetWarnings(), 1)
	require.Equal(t, "group_deleted", im.GetWarnings()[0].GetCode())
	require.Contains(t, im.GetWarnings()[0].GetMessage(), gone)
	members, err := w.groups.ListGroupContacts(owner, &accountv1.ListGroupContactsRequest{ContactGroupId: stays})
	require.NoError(t, err)
	require.Len(t, members.GetData(), 1)
	_, err = w.upload(owner, set, "name,phone\nA,+251911000002\n")
	reason(t, errorv1.Reason_REASON_NOT_FOUND, err)
}
