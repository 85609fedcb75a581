package account

import (
	"time"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
)

// PermissionImport is what an import needs, from its upload to its last row.
const PermissionImport = "contacts.import"

const (
	// MaxImport is the most bytes of one file (decision C8).
	MaxImport = 1 << 30
	// MaxOpenImports is how many imports of one account may be unfinished.
	MaxOpenImports = 10
	// ImportLife is how long an import and its errors are kept.
	ImportLife = 30 * 24 * time.Hour
	// UploadLife is how long an upload that broke can be continued.
	UploadLife = 24 * time.Hour
)

// ImportStatus is how far an import has come.
type ImportStatus string

// The statuses of an import, in order.
const (
	ImportUploading  ImportStatus = "uploading"
	ImportQueued     ImportStatus = "queued"
	ImportProcessing ImportStatus = "processing"
	ImportCompleted  ImportStatus = "completed"
	ImportFailed     ImportStatus = "failed"
	ImportCancelled  ImportStatus = "cancelled"
)

// ImportColumn is a column of a file and where its cells go; an empty field leaves
// the column out.
type ImportColumn struct {
	Header string `json:"header"`
	Field  string `json:"field"`
}

// Codes of warnings.
const (
	// WarnEncoding: nothing in the file says its encoding.
	WarnEncoding = "encoding_uncertain"
	// WarnDamaged: bytes of the file are not of its encoding.
	WarnDamaged = "encoding_damaged"
	// WarnColumn: a column became free data.
	WarnColumn = "column_unknown"
	// WarnGroup: a group of the import was deleted meanwhile.
	WarnGroup = "group_deleted"
)

// ImportWarning is what a file may not mean as it was read, or what did not happen.
type ImportWarning struct {
	Code        string `json:"code"`
	Column      string `json:"column,omitempty"`
	Message     string `json:"message"`
	Alternative string `json:"alternative,omitempty"`
}

// Import is one CSV file on its way to being contacts.
type Import struct {
	ID              string
	AccountID       string
	Status          ImportStatus
	FileName        string
	DryRun          bool
	Encoding        string
	Delimiter       string
	Columns         []ImportColumn
	MatchBy         []ContactKey
	ContactGroupIDs []string
	ReceivedBytes   int32
	ImportProgress
	Warnings        []ImportWarning
	ErrorMessage    string
	CreatedByUserID string
	// CreatedByAPIKeyID is the key that the upload was made with; empty without.
	CreatedByAPIKeyID string
	FinishedAt        *time.Time
	CreatedAt         time.Time
	UpdatedAt         time.Time
}

// ImportProgress is what has become of a file so far.
type ImportProgress struct {
	ProcessedBytes int32
	// ReadCount is the records that were read, empty rows too: where to go on.
	ReadCount     int32
	RowCount      int32
	CreatedCount  int32
	UpdatedCount  int32
	RejectedCount int32
}

// Final reports whether nothing more happens to the import.
func (i *Import) Final() bool {
	return i.Status == ImportCompleted || i.Status == ImportFailed || i.Status == ImportCancelled
}

// Headers are the names of the file's columns.
func (i *Import) Headers() []string {
	out := make([]string, len(i.Columns))
	for n, c := range i.Columns {
		out[n] = c.Header
	}
	return out
}

// ImportRow is one row of a file: a contact, or why it cannot be one.
type ImportRow struct {
	// Line is where the row begins in the file, from 1.
	Line int
	// Read counts the records up to this one, empty ones and the row itself included.
	Read    int32
	Cells   []string
	Contact *Contact
	Err     error
}

// PlacedRow is a row that became part of a contact.
type PlacedRow struct {
	Line    int
	Cells   []string
	Created bool // the row made the contact
}

// Reject is the row with the reason why its contact could not be stored after all;
// the counts follow.
func (r PlacedRow) Reject(err error, count *ImportProgress) RejectedRow {
	if r.Created {
		count.CreatedCount--
	} else {
		count.UpdatedCount--
	}
	count.RejectedCount++
	row := ImportRow{Line: r.Line, Cells: r.Cells}
	return row.Rejected(err)
}

// RejectedRow is a row that broke a rule, as it is listed.
type RejectedRow struct {
	Line    int
	Code    string
	Field   string
	Message string
	Cells   []string
}

// Rejected is the row with the reason why it was, in words.
func (r *ImportRow) Rejected(err error) RejectedRow {
	e := apierr.From(err)
	out := RejectedRow{Line: r.Line, Code: apierr.Name(e.Reason), Message: e.Message, Cells: r.Cells}
	if len(e.Fields) > 0 {
		out.Field, out.Message = e.Fields[0].Field, e.Fields[0].Message
	}
	return out
}

// InvalidField is the error of one field that breaks its rule.
func InvalidField(field, message string) *apierr.Error {
	return apierr.New(errorv1.Reason_REASON_VALIDATION_FAILED, "the request is not valid").
		WithFields(apierr.Field{Field: field, Message: message})
}
