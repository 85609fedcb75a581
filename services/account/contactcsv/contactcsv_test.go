package contactcsv_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/charmap"
	"golang.org/x/text/encoding/unicode"

	"github.com/turumba/turumba/kit/apierr"
	account "github.com/turumba/turumba/services/account"
	"github.com/turumba/turumba/services/account/contactcsv"
)

// read reads a whole file as an import does.
func read(file []byte, encoding, delimiter string, chosen map[string]string) (contactcsv.Format, []account.ImportRow, error) {
	f, err := contactcsv.Detect(file[:min(len(file), contactcsv.SampleSize)], encoding, delimiter)
	if err != nil {
		return f, nil, err
	}
	columns, err := contactcsv.Map(f.Header, chosen)
	if err != nil {
		return f, nil, err
	}
	r, err := contactcsv.NewReader(bytes.NewReader(file), f)
	if err != nil {
		return f, nil, err
	}
	var rows []account.ImportRow
	for {
		row, err := r.Next()
		if errors.Is(err, io.EOF) {
			return f, rows, nil
		}
		if err != nil {
			return f, rows, err
		}
		if row.Err == nil && row.Cells != nil {
			row.Contact, row.Err = contactcsv.Contact(columns, row.Cells)
		}
		rows = append(rows, row)
	}
}

func encoded(t *testing.T, e interface{ Bytes([]byte) ([]byte, error) }, text string) []byte {
	t.Helper()
	out, err := e.Bytes([]byte(text))
	require.NoError(t, err)
	return out
}

func TestDetect(t *testing.T) {
	t.Parallel()
	const text = "Name,E-mail\nTsegaye Γεια,a@b.example\nÜmit,c@d.example\n"
	latin := "Name;Phone\r\nJosé;+34600000000\r\nZoë;+34600000001\r\n"
	for _, c := range []struct {
		name, encoding string
		delimiter      rune
		file           []byte
		first          string
	}{
		{"plain", "utf-8", ',', []byte(text), "Tsegaye Γεια"},
		{"byte order mark", "utf-8", ',', []byte("\ufeff" + text), "Tsegaye Γεια"},
		{"UTF-16 with mark", "utf-16le", ',', encoded(t, unicode.UTF16(unicode.LittleEndian, unicode.UseBOM).NewEncoder(), text), "Tsegaye Γεια"},
		{"UTF-16 big endian with mark", "utf-16be", ',', encoded(t, unicode.UTF16(unicode.BigEndian, unicode.UseBOM).NewEncoder(), text), "Tsegaye Γεια"},
		{"UTF-16 without mark", "utf-16le", ';', encoded(t, unicode.UTF16(unicode.LittleEndian, unicode.IgnoreBOM).NewEncoder(), latin), "José"},
		{"UTF-16 big endian without mark", "utf-16be", ';', encoded(t, unicode.UTF16(unicode.BigEndian, unicode.IgnoreBOM).NewEncoder(), latin), "José"},
		{"Windows-1252", "windows-1252", ';', encoded(t, charmap.Windows1252.NewEncoder(), latin), "José"},
		{"separator line", "utf-8", '|', []byte("sep=|\r\nname|email\r\nA,B|x@y.example\r\n"), "A,B"},
		{"tabs", "utf-8", '\t', []byte("name\temail\nA, B\tx@y.example\n"), "A, B"},
		{"commas in quotes", "utf-8", ';', []byte("name;note\n\"A, B\";\"x, y, z\"\nC;d\n"), "A, B"},
		{"one column", "utf-8", ',', []byte("name\nA B\n"), "A B"},
		{"no line end", "utf-8", ',', []byte("name,email\nA,x@y.example"), "A"},
	} {
		f, rows, err := read(c.file, "", "", nil)
		require.NoError(t, err, c.name)
		require.Equal(t, c.encoding, f.Encoding, c.name)
		require.Equal(t, string(c.delimiter), string(f.Delimiter), c.name)
		require.NotEmpty(t, rows, c.name)
		require.NoError(t, rows[0].Err, c.name)
		require.Equal(t, c.first, rows[0].Contact.Name, c.name)
	}
	_, rows, err := read(encoded(t, charmap.Windows1256.NewEncoder(), "name\nمحمد\n"), "windows-1256", "", nil)
	require.NoError(t, err)
	require.Equal(t, "محمد", rows[0].Contact.Name)
}

// TestLateBytes: a file that begins as ASCII and shows only after the sample that
// it is no UTF-8.
func TestLateBytes(t *testing.T) {
	t.Parallel()
	file := []byte("name,email\n" + strings.Repeat("Ann,a@b.example\n", 8000) + "Jos\xe9,j@b.example\n")
	_, rows, err := read(file, "", "", nil)
	require.NoError(t, err)
	require.Equal(t, "José", rows[len(rows)-1].Contact.Name)
}

func TestUnreadableFiles(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, file, encoding, delimiter, field, message string }{
		{"empty", "", "", "", "data", "empty"},
		{"workbook", "PK\x03\x04rest", "", "", "data", "save the sheet as CSV"},
		{"compressed", "\x1f\x8b\x08", "", "", "data", "unpacked"},
		{"binary", "\x00\x01\x02\x00\xff\x00\x03\x00\x00\x09", "", "", "data", "not text"},
		{"unknown encoding", "name\n", "klingon", "", "encoding", "not an encoding"},
		{"delimiter", "name\n", "", "\"", "delimiter", "cannot separate"},
		{"nothing to go by", "city,age\nAdama,3\n", "", "", "mapping", "no column"},
		{"twice", "email,Email ,email\n", "", "", "data", "twice"},
		{"columns", strings.Repeat("a,", 300) + "name\n", "", "", "data", "301 columns"},
		{"quote", "\"na\"me,email\nA,b\n", "", "", "data", "not CSV"},
	} {
		_, _, err := read([]byte(c.file), c.encoding, c.delimiter, nil)
		require.Error(t, err, c.name)
		e := apierr.From(err)
		require.Equal(t, "VALIDATION_FAILED", apierr.Name(e.Reason), c.name)
		require.Equal(t, c.field, e.Fields[0].Field, c.name)
		require.Contains(t, e.Fields[0].Message, c.message, c.name)
	}
	// A line without end ends at the limit, not at the memory's.
	_, rows, err := read([]byte("name,email\nA,b@c.example\nopen,"+strings.Repeat("x", 2<<20)), "", "", nil)
	require.Len(t, rows, 1)
	require.ErrorContains(t, err, "larger than 1 MiB")
}

// TestOneQuoteTooMany: a quote that nothing closes, or that meets another, costs its own row,
// which is rejected with its text.
func TestOneQuoteTooMany(t *testing.T) {
	t.Parallel()
	for name, broken := range map[string]string{
		"at the begin":        `"Row 1000,r1000@x.example,Adama`,
		"in front of a cell":  `Row 1000,"r1000@x.example,Adama`,
		"at the end":          `Row 1000,r1000@x.example,Adama"`,
		"in a name":           `Row "1000,r1000@x.example,Adama`,
		"in a quoted cell":    `Row 1000,r1000@x.example,"Ada"ma"`,
		"before a delimiter":  `"Row 1000",r1000@x.example,"Adama`,
		"an open quoted cell": `Row 1000,r1000@x.example,"Adama`,
	} {
		for _, quoted := range []bool{false, true} {
			lines := make([]string, 5001)
			lines[0] = "name,email,city"
			for n := 1; n <= 5000; n++ {
				lines[n] = fmt.Sprintf("Row %d,r%d@x.example,Adama", n, n)
				if quoted && n%7 == 0 && n != 1000 {
					lines[n] = fmt.Sprintf("\"Row %d\",\"r%d@x.example\",\"\"", n, n)
				}
			}
			lines[1000] = broken
			_, rows, err := read([]byte(strings.Join(lines, "\r\n")), "", "", nil)
			require.NoError(t, err, name)
			require.Len(t, rows, 5000, name)
			for i, row := range rows {
				require.Equal(t, i+2, row.Line)
				if i == 999 {
					require.ErrorContains(t, row.Err, "not valid")
					require.Equal(t, []string{broken}, row.Cells)
					continue
				}
				require.NoError(t, row.Err, "%s: line %d", name, row.Line)
				require.Equal(t, fmt.Sprintf("Row %d", i+1), row.Contact.Name)
			}
		}
	}
}

// TestTwoQuotes: two of them do not take what is between for a cell.
func TestTwoQuotes(t *testing.T) {
	t.Parallel()
	_, rows, err := read([]byte("name,email,city\n\"A,a@x.example,Adama\nB,b@x.example,Adama\nC,c@x.example,Adama\"\nD,d@x.example,\"Adama\nby the lake\"\n"), "", "", nil)
	require.NoError(t, err)
	require.Len(t, rows, 4)
	require.Error(t, rows[0].Err)
	require.Equal(t, "B", rows[1].Contact.Name)
	require.Error(t, rows[2].Err)
	require.JSONEq(t, `{"city":"Adama\nby the lake"}`, string(rows[3].Contact.Metadata))
}

// TestPiecesOfABrokenRow: the other lines of a row that is broken make nobody.
func TestPiecesOfABrokenRow(t *testing.T) {
	t.Parallel()
	_, rows, err := read([]byte("name,email,note\nA,a@x.example,\"one\ntwo\nthree\"x\nB,b@x.example\nC,c@x.example,\nD,d@x.example\n"), "", "", nil)
	require.NoError(t, err)
	require.Len(t, rows, 6)
	for _, row := range rows[:4] {
		require.Error(t, row.Err, "%v", row.Cells)
	}
	require.Equal(t, []string{"C", "D"}, []string{rows[4].Contact.Name, rows[5].Contact.Name})
}

// TestLineEnds: files end their lines as Windows, Unix and old Macs do.
func TestLineEnds(t *testing.T) {
	t.Parallel()
	for _, end := range []string{"\n", "\r\n", "\r"} {
		for _, mark := range []string{"", "\ufeff", "sep=,"} {
			if mark == "sep=," {
				mark += end
			}
			file := mark + strings.Join([]string{"name,note", `A,"two`, `lines"`, "", "B", "C,,,"}, end)
			_, rows, err := read([]byte(file), "", "", nil)
			require.NoError(t, err, "%q", file)
			require.Len(t, rows, 3, "%q", file)
			require.JSONEq(t, `{"note":"two\nlines"}`, string(rows[0].Contact.Metadata))
			require.Equal(t, []string{"B", "C"}, []string{rows[1].Contact.Name, rows[2].Contact.Name}, "%q", file)
		}
	}
}

func TestRows(t *testing.T) {
	t.Parallel()
	file := "name,email,note\n" +
		"Ann,a@b.example,\"two\nlines, and \"\"quotes\"\"\"\n" + // lines 2 and 3
		",,\n" +
		"\n" +
		"Bob,b@b.example\n" +
		"Cy,c@b.example,x,y\n" +
		"D\"an,d@b.example,z\n" +
		"  Eve  ,e@b.example,'=1+1\n"
	_, rows, err := read([]byte(file), "", "", nil)
	require.NoError(t, err)
	require.Len(t, rows, 6)
	require.JSONEq(t, `{"note":"two\nlines, and \"quotes\""}`, string(rows[0].Contact.Metadata))
	require.Nil(t, rows[1].Cells, "a row without text is none")
	require.NoError(t, rows[1].Err)
	for i, line := range map[int]int{0: 2, 2: 6, 3: 7, 4: 8, 5: 9} {
		require.Equal(t, line, rows[i].Line)
	}
	require.Equal(t, "Bob", rows[2].Contact.Name, "cells that are missing at the end are empty")
	for i, message := range map[int]string{3: "has 4 cells, the first row has 3", 4: "not CSV"} {
		r := rows[i].Rejected(rows[i].Err)
		require.Contains(t, r.Message, message)
		require.Equal(t, "VALIDATION_FAILED", r.Code)
	}
	require.Equal(t, "Eve", rows[5].Contact.Name)
	require.JSONEq(t, `{"note":"=1+1"}`, string(rows[5].Contact.Metadata))
}

func TestMap(t *testing.T) {
	t.Parallel()
	header := []string{"Full Name", "First-Name", "Mobile", "Phone", "E-Mail", "Labels", "Time Zone", "ID", "ቀለም", "City of Birth", "metadata.plan", "", "telegram"}
	columns, err := contactcsv.Map(header, nil)
	require.NoError(t, err)
	want := []string{"name", "first_name", "phone", "metadata.phone", "email", "tags", "timezone", "id", "metadata.ቀለም", "metadata.city_of_birth", "metadata.plan", "", "telegram"}
	for i, c := range columns {
		require.Equal(t, want[i], c.Field, c.Header)
	}
	columns, err = contactcsv.Map([]string{"a", "b", "phone"}, map[string]string{"a": "phone", "b": "", "phone": "metadata.old"})
	require.NoError(t, err)
	require.Equal(t, []account.ImportColumn{{Header: "a", Field: "phone"}, {Header: "b"}, {Header: "phone", Field: "metadata.old"}}, columns)
	for message, chosen := range map[string]map[string]string{
		"does not have":     {"z": "name"},
		"contact does not":  {"a": "height"},
		"and":               {"a": "phone", "b": "phone"},
		"no column is":      {"phone": "", "a": "metadata", "b": "tags"},
		"the field \"meta":  {"a": "metadata."},
		"names the column ": {"": "name"},
	} {
		_, err := contactcsv.Map([]string{"a", "b", "phone"}, chosen)
		require.Error(t, err, message)
		require.Contains(t, apierr.From(err).Fields[0].Message, message)
	}
}

// TestHeadersOfOthers: columns have names in the languages of our users, and those of the
// exports of Google Contacts and Outlook.
func TestHeadersOfOthers(t *testing.T) {
	t.Parallel()
	for header, want := range map[string]string{
		"Vorname;Nachname;E-Mail-Adresse;Handynummer;Sprache":                         "first_name last_name email phone language",
		"Pr\u00e9nom;Nom;Courriel;T\u00e9l\u00e9phone;Langue":                         "first_name last_name email phone language",
		"Nombre;Apellidos;Correo electr\u00f3nico;M\u00f3vil":                         "first_name last_name email phone",
		"Nome completo;E-mail;Telem\u00f3vel;Etiquetas":                               "name email phone tags",
		"\u1235\u121d;\u1235\u120d\u12ad \u1241\u1325\u122d;\u12a2\u121c\u12ed\u120d": "name phone email",
		"Given Name;Family Name;E-mail 1 - Value;Phone 1 - Value;Group Membership":    "first_name last_name email phone tags",
		"First Name;Last Name;E-mail Address;Mobile Phone;Categories":                 "first_name last_name email phone tags",
	} {
		columns, err := contactcsv.Map(strings.Split(header, ";"), nil)
		require.NoError(t, err, header)
		var got []string
		for _, c := range columns {
			got = append(got, c.Field)
		}
		require.Equal(t, want, strings.Join(got, " "), header)
	}
}

// TestRoundTrip: what an export writes, an import reads as the same contact.
func TestRoundTrip(t *testing.T) {
	t.Parallel()
	c := &account.Contact{
		ID: account.NewID(), AccountID: account.NewID(), Name: "=HYPERLINK(\"http://x\")", FirstName: "-Ann", LastName: "O'Hara", Email: "a@b.example", Phone: "+251911223344",
		Tags: []string{"@vip", "a,b", "c d"}, Language: "am", Timezone: "Africa/Addis_Ababa", ExternalID: "'=7", PreferredChannelType: "telegram",
		Metadata: json.RawMessage(`{"age":30,"note":"line\none","x":[1]}`), Identifiers: map[string]string{"telegram": "+4711x", "whatsapp": "'"},
		CreatedAt: time.Unix(1, 0), UpdatedAt: time.Unix(2, 0),
	}
	var out bytes.Buffer
	w, err := contactcsv.NewWriter(&out, contactcsv.Columns(), false)
	require.NoError(t, err)
	require.NoError(t, w.Write(c))
	require.NoError(t, w.Flush())
	require.NotRegexp(t, `(?m)(^|,)"?[=@-]`, out.String(), "no cell is a formula")
	require.Contains(t, out.String(), ",+251911223344,")
	_, rows, err := read(out.Bytes(), "", "", nil)
	require.NoError(t, err)
	require.NoError(t, rows[0].Err)
	c.AccountID, c.CreatedAt, c.UpdatedAt = "", time.Time{}, time.Time{}
	require.Equal(t, c, rows[0].Contact)

	out.Reset()
	w, err = contactcsv.NewWriter(&out, []string{"metadata.age", "metadata.note", "metadata.none", "id"}, false)
	require.NoError(t, err)
	require.NoError(t, w.Write(c))
	require.NoError(t, w.Flush())
	require.Equal(t, "metadata.age,metadata.note,metadata.none,id\r\n30,\"line\r\none\",,"+c.ID+"\r\n", out.String())
	_, err = contactcsv.NewWriter(&out, []string{"height"}, false)
	require.Error(t, err)
}

func TestErrorWriter(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	w, err := contactcsv.NewErrorWriter(&out, []string{"name", "=x"})
	require.NoError(t, err)
	require.NoError(t, w.Write(&account.RejectedRow{Line: 3, Code: "VALIDATION_FAILED", Field: "phone", Message: "is not a phone number", Cells: []string{"=1", "b"}}))
	require.NoError(t, w.Write(&account.RejectedRow{Line: 4, Code: "VALIDATION_FAILED", Message: "is not CSV"}))
	require.NoError(t, w.Flush())
	require.Equal(t, "line,code,field,message,name,'=x\r\n3,VALIDATION_FAILED,phone,is not a phone number,'=1,b\r\n4,VALIDATION_FAILED,,is not CSV,,\r\n", out.String())
}

// FuzzRead: no file breaks the reader; what it gives is text that can be stored.
func FuzzRead(f *testing.F) {
	for _, seed := range []string{"name,email\nA,b@c\n", "\ufeffname;x\n\"a\";1\n", "sep=|\nname|tags\na|[\"b\"]\n", "\xff\xfen\x00a\x00m\x00e\x00\n\x00a\x00", "name\n\"open", "name,metadata\nA,{\"a\":1}\n"} {
		f.Add([]byte(seed), "")
	}
	f.Add([]byte("name\n\x83\x5c\n"), "shift_jis")
	f.Fuzz(func(t *testing.T, file []byte, encoding string) {
		_, rows, err := read(file, encoding, "", nil)
		if err != nil {
			return
		}
		for _, row := range rows {
			for _, cell := range row.Cells {
				require.True(t, utf8.ValidString(cell), "%q", cell)
				require.NotContains(t, cell, "\x00")
			}
			if row.Contact != nil {
				_, err := row.Contact.Document()
				require.NoError(t, err)
			}
		}
	})
}

// FuzzGuard: an exported cell is no formula, and is imported as it was.
func FuzzGuard(f *testing.F) {
	for _, seed := range []string{"=1", "+251911", "+1+1", "-x", "'", "'=", "''@", "\t=1", "ok"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		value = strings.TrimSpace(value)
		if value == "" || !utf8.ValidString(value) || strings.ContainsAny(value, "\r\x00\ufeff\u200b") {
			return
		}
		var out bytes.Buffer
		w, err := contactcsv.NewWriter(&out, []string{"last_name", "email"}, false)
		require.NoError(t, err)
		require.NoError(t, w.Write(&account.Contact{LastName: value, Email: "a@b.example"}))
		require.NoError(t, w.Flush())
		require.NotRegexp(t, `^"?([=@-]|\+[0-9]*[^0-9,])`, strings.SplitN(out.String(), "\r\n", 2)[1], "a spreadsheet calculates it")
		_, rows, err := read(out.Bytes(), "utf-8", ",", nil)
		require.NoError(t, err)
		require.Equal(t, value, rows[0].Contact.LastName)
	})
}

// TestUncertainEncodings: a file that says nothing of its encoding and is no UTF-8 is read as
// Windows-1252, with a warning that names what it may be instead.
func TestUncertainEncodings(t *testing.T) {
	t.Parallel()
	const german, russian = "name,phone\nJörg Müßig,+251911000001\nRené,+251911000002\n", "имя,phone,name\nИван Иванович,+251911000001,Пётр\n"
	bytesOf := func(e encoding.Encoding, text string) []byte { return encoded(t, e.NewEncoder(), text) }
	for name, c := range map[string]struct {
		file        []byte
		said        string
		alternative string
	}{
		"plain":                     {[]byte("name,phone\nJorg,+251911000001\n"), "", ""},
		"UTF-8":                     {[]byte(german), "", ""},
		"UTF-8 of another alphabet": {[]byte(russian), "", ""},
		"UTF-16":                    {bytesOf(unicode.UTF16(unicode.LittleEndian, unicode.UseBOM), german), "", ""},
		"Western Europe":            {bytesOf(charmap.Windows1252, german), "", "windows-1250"},
		"said":                      {bytesOf(charmap.Windows1252, german), "windows-1252", ""},
		"said otherwise":            {bytesOf(charmap.Windows1251, russian), "windows-1251", ""},
		"Cyrillic":                  {bytesOf(charmap.Windows1251, russian), "", "windows-1251"},
		"Macintosh":                 {bytesOf(charmap.Macintosh, german), "", "macintosh"},
		"UTF-8 of one letter and two damaged bytes": {[]byte("name,phone\nZo\u00eb,+251911000001\nRen\xff\xe9,+251911000002\n"), "", "utf-8"},
		"UTF-8 with one damaged byte":               {append([]byte(german), "M\xfcller,+251911000003\n"...), "", ""},
	} {
		f, err := contactcsv.Detect(c.file, c.said, "")
		require.NoError(t, err, name)
		columns, err := contactcsv.Map(f.Header, nil)
		require.NoError(t, err, name)
		got := ""
		for _, w := range contactcsv.Warnings(c.file, f, c.said != "", columns, nil) {
			if w.Code == account.WarnEncoding {
				got = w.Alternative
				require.Contains(t, w.Message, "encoding="+w.Alternative, name)
			}
		}
		require.Equal(t, c.alternative, got, name)
	}
}

// TestDamagedUTF8: a few bytes that are no UTF-8 make no file another encoding's, whose letters
// would all be wrong.
func TestDamagedUTF8(t *testing.T) {
	t.Parallel()
	row := "x@b\u00fccher.example,\u12a0\u1260\u1260\n"
	for _, at := range []int{0, 3, 50, 400} {
		file := "email,name\n" + strings.Repeat(row, at) + "j@b.example,J\xf6rg\n" + strings.Repeat(row, 450-at)
		f, rows, err := read([]byte(file), "", "", nil)
		require.NoError(t, err)
		require.Equal(t, "utf-8", f.Encoding, at)
		require.Len(t, rows, 451)
		require.Equal(t, "\u12a0\u1260\u1260", rows[(at+7)%451].Contact.Name)
	}
}

// TestUnknownColumns: a column that becomes free data, or is left out, is a warning; one whose
// cells look like an address or a number names the field that may be meant.
func TestUnknownColumns(t *testing.T) {
	t.Parallel()
	const rows = "A,+251 911 000 001,a@x.example,Adama,01.02.2020,12345678,0911 000 001\nB,(0911) 000-002,b@x.example,,02.02.2020,12345679,\n,,,,,,\n"
	warned := func(header string, chosen map[string]string) map[string]string {
		t.Helper()
		file := []byte(header + "\n" + rows)
		f, err := contactcsv.Detect(file, "", "")
		require.NoError(t, err)
		columns, err := contactcsv.Map(f.Header, chosen)
		require.NoError(t, err)
		out := map[string]string{}
		for _, w := range contactcsv.Warnings(file, f, false, columns, chosen) {
			require.Equal(t, account.WarnColumn, w.Code)
			require.Contains(t, w.Message, w.Column)
			out[w.Column] = w.Alternative
		}
		return out
	}
	require.Equal(t, map[string]string{"Erreichbar": "phone", "Kontakt-Weg": "email", "Ort": "", "Seit": "", "Nr": "", "Zweit": "phone"},
		warned("Name,Erreichbar,Kontakt-Weg,Ort,Seit,Nr,Zweit", nil))
	require.Equal(t, map[string]string{"Ort": "", "Seit": "", "Nr": "", "Zweit": ""}, warned("Name,Phone,E-Mail,Ort,Seit,Nr,Zweit", nil), "the field has its column")
	require.Empty(t, warned("name,phone,email,metadata.city,metadata.since,external_id,metadata.second", nil))
	require.Empty(t, warned("Name,a,b,c,d,e,f", map[string]string{"a": "phone", "b": "email", "c": "", "d": "", "e": "metadata.nr", "f": ""}), "the caller said so")
	require.Equal(t, map[string]string{"Handy": "", "Ort": "", "ort": "", "handy": ""}, warned("Name,Phone,Email,Ort,ort,Handy,handy", nil), "what is called alike is left out, with a word")
	long := strings.Repeat("ü", 120)
	w := contactcsv.Warnings([]byte("name,"+long+"\nA,b\n"), contactcsv.Format{Encoding: "utf-8", Delimiter: ','}, false, []account.ImportColumn{{Header: "name", Field: "name"}, {Header: long, Field: "metadata." + long}}, nil)
	require.Len(t, w, 1)
	require.Less(t, utf8.RuneCountInString(w[0].Message), 1024)
}
