package chaos_test

import (
	"bufio"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/cmd/turumba/single"
	"github.com/turumba/turumba/kit/clock"
)

// counts are what becomes of the rows of a file.
type counts struct{ Created, Updated, Rejected int }

// TestKillImport imports a file and kills the process in the middle, in turns alone
// and with its PostgreSQL; the counts must be those of who never saw the product.
// IMPORT_ROWS is its size, IMPORT_KILLS how often; where the size is named it is also
// imported once without a kill, for the rate.
func TestKillImport(t *testing.T) {
	t.Parallel()
	rows, kills := setting(t, "IMPORT_ROWS", 20_000), setting(t, "IMPORT_KILLS", 2)
	file := writeFile(t, rows)
	want := count(t, file)
	simulator, program := startSimulator(t), binary(t, "cmd/turumba")
	if os.Getenv("IMPORT_ROWS") != "" {
		require.Equal(t, want, importFile(t, simulator, program, file, rows, 0))
	}
	if kills > 0 {
		require.Equal(t, want, importFile(t, simulator, program, file, rows, kills))
	}
}

// writeFile writes people: new ones, known ones by one key or the other, and rows
// that break each rule.
func writeFile(t *testing.T, rows int) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "people.csv")
	f, err := os.Create(path)
	require.NoError(t, err)
	w := bufio.NewWriter(f)
	fmt.Fprintln(w, "Name,Phone,E-mail,Tags,City,Note")
	for i := range rows {
		phone, email := fmt.Sprintf("+2519%08d", i), fmt.Sprintf("Person%d@Import.example", i)
		switch {
		case i%1000 == 500:
			fmt.Fprintf(w, "Short %d,%s\n", i, phone)
		case i%1000 == 501:
			fmt.Fprintln(w, ",,,,,")
		case i%1000 == 502: // the phone of one person and the address of another
			fmt.Fprintf(w, "Clash %d,+2519%08d,person%d@import.example,,,\n", i, i-10, i-20)
		case i%1000 == 503:
			fmt.Fprintf(w, "Broken %d,\"%s,x\"y,,,\n", i, phone)
		case i%100 == 50:
			fmt.Fprintf(w, "Bad phone %d,12,%s,,,\n", i, email)
		case i%100 == 51:
			fmt.Fprintf(w, "Bad address %d,%s,not an address,,,\n", i, phone)
		case i%10 == 9 && i > 10:
			fmt.Fprintf(w, "Again %d,+2519%08d,,\"again; b\",Adama,\"seen\ntwice\"\n", i, i-6)
		case i%10 == 8 && i > 10:
			fmt.Fprintf(w, "Again %d,,person%d@import.example,,,\n", i, i-6)
		default:
			fmt.Fprintf(w, "\"Person, No. %d\",%s,%s,a;b,Addis Ababa,\"say \"\"hi\"\"\"\n", i, phone, email)
		}
	}
	require.NoError(t, w.Flush())
	require.NoError(t, f.Close())
	return path
}

var (
	phonePattern = regexp.MustCompile(`^\+2519\d{8}$`)
	emailPattern = regexp.MustCompile(`^[a-z0-9]+@[a-z.]+$`)
)

// count says what must become of the file, without any code of the product.
func count(t *testing.T, path string) (c counts) {
	t.Helper()
	f, err := os.Open(path)
	require.NoError(t, err)
	defer func() { require.NoError(t, f.Close()) }()
	r := csv.NewReader(f)
	r.FieldsPerRecord = -1
	_, err = r.Read()
	require.NoError(t, err)
	person := map[string]int{}
	for n := 1; ; n++ {
		cells, err := r.Read()
		if errors.Is(err, io.EOF) {
			return c
		}
		for err == nil && len(cells) < 6 { // cells that are missing at the end are empty
			cells = append(cells, "")
		}
		if err == nil && strings.Join(cells, "") == "" {
			continue
		}
		if err != nil || len(cells) != 6 {
			c.Rejected++
			continue
		}
		phone, email := cells[1], strings.ToLower(cells[2])
		if phone != "" && !phonePattern.MatchString(phone) || email != "" && !emailPattern.MatchString(email) {
			c.Rejected++
			continue
		}
		byPhone, byEmail := person["p"+phone], person["e"+email]
		if phone == "" {
			byPhone = 0
		}
		if email == "" {
			byEmail = 0
		}
		who := max(byPhone, byEmail)
		switch {
		case byPhone != 0 && byEmail != 0 && byPhone != byEmail:
			c.Rejected++
			continue
		case who == 0:
			who = n
			c.Created++
		default:
			c.Updated++
		}
		person["p"+phone], person["e"+email] = who, who
	}
}

// importFile imports the file into a new installation, with kills, and returns what
// the product counted, once the stored contacts agree.
func importFile(t *testing.T, simulator *single.Simulator, binary, file string, rows, kills int) counts {
	t.Helper()
	data, httpAddr, admin := t.TempDir(), port(t), port(t)
	host, smtp := simulator.HostPort()
	p := newProgram(t, binary, "http://"+admin+"/readyz", []string{"up"},
		"TURUMBA_DATA_DIR="+data, "HTTP_ADDR="+httpAddr, "ADMIN_ADDR="+admin, "GRPC_ADDR=127.0.0.1:0", "LOG_LEVEL=WARN", "GOMEMLIMIT=80MiB",
		fmt.Sprintf("MAIL_URL=smtp://%s:%d?plaintext=true&from=no-reply@turumba.example", host, smtp),
		fmt.Sprintf("EGRESS_ALLOW=%s/32:%d", host, smtp))
	t.Cleanup(p.killTree)
	c := &caller{t: t, base: "http://" + httpAddr}
	email := fmt.Sprintf("importer-%d@chaos.example", kills)
	registered := c.call(http.MethodPost, "/auth/register", map[string]any{"email": email, "password": "correct horse battery", "full_name": "Ada", "account_name": "A"})
	code, err := simulator.Code(t.Context(), email)
	require.NoError(t, err)
	c.call(http.MethodPost, "/auth/verify-email", map[string]any{"email": email, "code": code, "registration_token": registered["registration_token"]})
	login := func() {
		c.token = c.call(http.MethodPost, "/auth/login", map[string]any{"email": email, "password": "correct horse battery"})["access_token"].(string)
	}
	login()

	start := p.peakMiB()
	p.forgetPeak()
	began := clock.System().Now()
	id := c.upload(file)["id"].(string)
	uploaded := clock.System().Now().Sub(began)
	state := func() map[string]any { return c.call(http.MethodGet, "/contacts/imports/"+id, nil) }
	number := func(im map[string]any, name string) int { n, _ := im[name].(float64); return int(n) }
	peak := 0
	for k := range kills {
		at := rows*(k+1)/(kills+1) + 1
		require.Eventually(t, func() bool { return number(state(), "row_count") >= at*9/10 }, patience, 5*time.Millisecond, "row %d", at)
		require.Nil(t, state()["finished_at"], "the kill comes too late")
		peak = max(peak, p.peakMiB())
		if k%2 == 0 {
			p.kill()
		} else {
			p.killTree()
		}
		p.start()
		login()
		p.forgetPeak()
	}
	var im map[string]any
	require.Eventually(t, func() bool { im = state(); return im["finished_at"] != nil }, 4*patience, 50*time.Millisecond)
	took := clock.System().Now().Sub(began)
	peak = max(peak, p.peakMiB())
	require.Equal(t, "completed", im["status"], im["error_message"])
	require.LessOrEqual(t, peak, 128, "MiB resident")
	got := counts{number(im, "created_count"), number(im, "updated_count"), number(im, "rejected_count")}
	require.Equal(t, number(im, "row_count"), got.Created+got.Updated+got.Rejected)
	t.Logf("%d kills: %d rows = %d created + %d updated + %d rejected; uploaded in %.1f s, %.0f rows/s in all, peak RSS %d MiB (%d before)",
		kills, number(im, "row_count"), got.Created, got.Updated, got.Rejected, uploaded.Seconds(), float64(rows)/took.Seconds(), peak, start)

	b := &book{t: t, url: strings.Replace(socketURL(data), "/turumba_messaging", "/turumba_account", 1)}
	require.NoError(t, b.query(func(ctx context.Context, conn *pgx.Conn) error {
		var stored, rejected, leftovers int
		err := conn.QueryRow(ctx, `SELECT (SELECT count(*) FROM contact_documents), (SELECT count(*) FROM contact_import_errors),
			(SELECT count(*) FROM contact_import_chunks) + (SELECT count(*) FROM contact_import_jobs) + (SELECT count(*) FROM contact_import_plans)`).Scan(&stored, &rejected, &leftovers)
		require.Equal(t, got.Created, stored, "contacts")
		require.Equal(t, got.Rejected, rejected, "rows in the errors file")
		require.Zero(t, leftovers, "of the file")
		return err
	}))
	return got
}

// upload sends a file as REST clients do.
func (c *caller) upload(path string) map[string]any {
	c.t.Helper()
	f, err := os.Open(path)
	require.NoError(c.t, err)
	req, err := http.NewRequestWithContext(c.t.Context(), http.MethodPost, c.base+"/v1/contacts/import?file_name=people.csv", f)
	require.NoError(c.t, err)
	req.Header.Set("Content-Type", "text/csv")
	req.Header.Set("Authorization", "Bearer "+c.token)
	res, err := (&http.Client{Timeout: patience}).Do(req)
	require.NoError(c.t, err)
	defer func() { require.NoError(c.t, res.Body.Close()) }()
	var out map[string]any
	require.NoError(c.t, json.NewDecoder(res.Body).Decode(&out))
	require.Equal(c.t, http.StatusCreated, res.StatusCode, out)
	return out
}

// peakMiB is the most memory that the program ever had resident, in MiB.
func (p *program) peakMiB() int {
	p.t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	require.NoError(p.t, err)
	m := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(status)
	require.NotNil(p.t, m)
	kib, err := strconv.Atoi(string(m[1]))
	require.NoError(p.t, err)
	return kib / 1024
}

// forgetPeak begins to measure peakMiB anew (proc(5), clear_refs): a login takes
// more memory than an import.
func (p *program) forgetPeak() {
	p.t.Helper()
	require.NoError(p.t, os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", p.cmd.Process.Pid), []byte("5"), 0o600))
}
