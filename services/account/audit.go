package account

import (
	"encoding/json"
	"reflect"
	"strings"
	"time"
	"unicode"
)

// AuditLife is how long audit events are kept.
const AuditLife = 400 * 24 * time.Hour

// AuditOutcome is what became of a change.
type AuditOutcome string

// The outcomes. Changes in PostgreSQL have succeeded when their event is there; those
// in another store are pending until they are settled.
const (
	AuditSucceeded AuditOutcome = "succeeded"
	AuditPending   AuditOutcome = "pending"
	AuditFailed    AuditOutcome = "failed"
	// AuditUnknown: the process died in between, and nothing tells any more.
	AuditUnknown AuditOutcome = "unknown"
)

// AuditEvent tells who did what to which resource.
type AuditEvent struct {
	ID            string
	AccountID     string
	Action        string // resource and verb: "contact.update"
	ResourceType  string
	ResourceID    string
	ActorUserID   string
	ActorAPIKeyID string
	IP            string
	UserAgent     string
	RequestID     string
	Changes       json.RawMessage
	Outcome       AuditOutcome
	CreatedAt     time.Time
}

// change is one field of an audit event.
type change struct {
	From any `json:"from,omitempty"`
	To   any `json:"to,omitempty"`
}

// unaudited are fields that every event tells otherwise, or that count up.
var unaudited = map[string]bool{"id": true, "account_id": true, "created_at": true, "updated_at": true, "last_used_at": true, "contact_count": true}

// Changes are the fields in which two values of one struct type differ; before is
// nil for what was made, after for what was removed. Fields of bytes, which are
// hashes and other secrets, are left out.
func Changes[T any](before, after *T) json.RawMessage {
	changes := map[string]change{}
	t := reflect.TypeFor[T]()
	for i := range t.NumField() {
		f := t.Field(i)
		name := snake(f.Name)
		if !f.IsExported() || unaudited[name] || (f.Type.Kind() == reflect.Slice && f.Type.Elem().Kind() == reflect.Uint8 && f.Type != reflect.TypeFor[json.RawMessage]()) {
			continue
		}
		from, to := valueOf(before, i), valueOf(after, i)
		if !reflect.DeepEqual(from, to) {
			changes[name] = change{from, to}
		}
	}
	out, err := json.Marshal(changes)
	if err != nil {
		return json.RawMessage(`{}`) // free data that is no JSON was refused before
	}
	return out
}

// valueOf is a field of v; nil when there is no v or the field is empty.
func valueOf[T any](v *T, i int) any {
	if v == nil {
		return nil
	}
	f := reflect.ValueOf(v).Elem().Field(i)
	if f.IsZero() || (f.Kind() == reflect.Slice && f.Len() == 0) {
		return nil
	}
	return f.Interface()
}

// snake is a Go name as the contract writes it.
func snake(name string) string {
	var b strings.Builder
	runes := []rune(name)
	for i, c := range runes {
		plural := i+1 < len(runes) && runes[i+1] == 's' && (i+2 == len(runes) || unicode.IsUpper(runes[i+2])) // as in IDs
		lowerNext := i+1 < len(runes) && unicode.IsLower(runes[i+1]) && !plural
		if unicode.IsUpper(c) && i > 0 && (unicode.IsLower(runes[i-1]) || lowerNext) {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToLower(c))
	}
	return b.String()
}
