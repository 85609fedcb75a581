package contactcsv_test

import (
	"bytes"
	"encoding/csv"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	account "github.com/turumba/turumba/services/account"
)

// pieces are what cells are made of: what delimits, quotes and ends lines among it.
var pieces = []string{"Abebe", "Ümit", "ስም", "42", "+251911000001", "a@b.example", " ", "", "'", "\"", ",", ";", "\n", "x", "=1+1", "O'Hara", "\t", "two words"}

func randomCell(r *rand.Rand) string {
	var b strings.Builder
	for range r.IntN(4) {
		b.WriteString(pieces[r.IntN(len(pieces))])
	}
	return b.String()
}

// randomFile is a file that is valid by RFC 4180, and its rows.
func randomFile(r *rand.Rand) (file []byte, rows [][]string) {
	width := 2 + r.IntN(4)
	header := make([]string, width)
	for i := range header {
		header[i] = fmt.Sprintf("column %d", i)
	}
	header[0] = "name"
	var out bytes.Buffer
	w := csv.NewWriter(&out)
	w.UseCRLF = r.IntN(2) == 0
	_ = w.Write(header) // to memory
	for range 1 + r.IntN(30) {
		row := make([]string, width)
		for i := range row {
			row[i] = randomCell(r)
		}
		row[0] = fmt.Sprintf("Row %d%s", len(rows), row[0]) // no row is blank
		rows = append(rows, row)
		_ = w.Write(row)
	}
	w.Flush()
	return out.Bytes(), rows
}

const files = 10_000

// TestValidFiles: every record of a valid file is a row, with its cells.
func TestValidFiles(t *testing.T) {
	t.Parallel()
	for seed := range uint64(files) {
		file, want := randomFile(rand.New(rand.NewPCG(seed, 1)))
		_, rows, err := read(file, "utf-8", ",", nil)
		require.NoError(t, err, "seed %d", seed)
		require.Len(t, rows, len(want), "seed %d: %q", seed, file)
		for i, row := range rows {
			require.NoError(t, row.Err, "seed %d", seed)
			for n, cell := range want[i] {
				cell = strings.ReplaceAll(cell, "\r\n", "\n")
				require.Equal(t, strings.TrimSpace(cell), row.Cells[n], "seed %d", seed)
			}
		}
	}
}

// TestMangledFiles: whatever happened to a file, the text of each line is in a row, in order,
// and undamaged records stay rows of their own. A quote is put in or taken out, or a line is
// cut, in files whose cells have no line ends: those with some may become other valid files.
func TestMangledFiles(t *testing.T) {
	t.Parallel()
	for seed := range uint64(files) {
		r := rand.New(rand.NewPCG(seed, 2))
		count := 10 + r.IntN(200)
		lines := make([]string, count)
		for n := range lines {
			lines[n] = fmt.Sprintf("Row %d,r%d@x.example,Adama %d", n, n, n)
			if r.IntN(3) == 0 {
				lines[n] = fmt.Sprintf(`"Row %d","r%d@x.example","Adama, %d ""A"""`, n, n, n)
			}
		}
		damaged := r.IntN(count)
		lines[damaged] = mangle(r, lines[damaged])
		_, rows, err := read([]byte("name,email,city\n"+strings.Join(lines, "\n")+"\n"), "utf-8", ",", nil)
		require.NoError(t, err, "seed %d", seed)
		named := map[string]account.ImportRow{}
		text := ""
		for _, row := range rows {
			text += strings.Join(row.Cells, ",") + "\n"
			if row.Err == nil && row.Contact != nil {
				named[row.Contact.Name] = row
			}
		}
		for n := range lines {
			name := fmt.Sprintf("Row %d", n)
			if n < damaged-1 || n > damaged+1 {
				require.Contains(t, named, name, "seed %d: damaged %q", seed, lines[damaged])
			}
			if n != damaged {
				require.Contains(t, text, fmt.Sprintf("r%d@x.example", n), "seed %d: nothing is lost", seed)
			}
		}
	}
}

func mangle(r *rand.Rand, line string) string {
	at := r.IntN(len(line) + 1)
	switch r.IntN(4) {
	case 0:
		return line[:at]
	case 1:
		return strings.Replace(line, `"`, "", 1)
	case 2:
		return line[:at] + `"` + line[at:] + `"`
	}
	return line[:at] + `"` + line[at:]
}
