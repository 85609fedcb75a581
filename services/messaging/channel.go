package messaging

import (
	"net/netip"
	"strings"
	"time"

	"github.com/google/uuid"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
)

// NewID returns a new UUIDv7.
func NewID() string { return uuid.Must(uuid.NewV7()).String() }

// Kinds of channels.
const (
	TypeEmail = "email"
	TypeSMS   = "sms"
)

// The states of a channel.
const (
	ChannelDisconnected = "disconnected"
	ChannelConnected    = "connected"
	ChannelRateLimited  = "rate_limited"
	ChannelError        = "error"
	ChannelDisabled     = "disabled"
)

// What to do when an outcome stays unknown.
const (
	UnknownHold   = "hold"
	UnknownResend = "resend"
)

// Providers.
const (
	// ProviderSMTP is an SMTP submission server.
	ProviderSMTP = "smtp"
	// ProviderTwilio is Twilio's API of messages.
	ProviderTwilio = "twilio"
)

// Defaults of a channel.
const (
	DefaultRetryCount    = 3
	DefaultRetryInterval = 60 // seconds
	DefaultConnections   = 4
	DefaultSMTPPort      = 587
)

// Credentials are what reaches a provider, without the secrets, which are kept apart,
// sealed. One kind is set.
type Credentials struct {
	// SMTP was the first kind: its fields stand at the top of the stored JSON, each
	// other kind under its own name.
	*SMTP
	Twilio *Twilio `json:"twilio,omitempty"`
}

// Check reports what keeps the credentials from working. What an adapter can see by
// itself is its own affair.
func (c Credentials) Check() error {
	if c.SMTP != nil {
		return c.SMTP.Check()
	}
	return nil
}

// Twilio is what reaches Twilio's API.
type Twilio struct {
	AccountSID          string `json:"account_sid"`
	APIKeySID           string `json:"api_key_sid,omitempty"`
	FromNumber          string `json:"from_number,omitempty"`
	MessagingServiceSID string `json:"messaging_service_sid,omitempty"`
	BaseURL             string `json:"base_url,omitempty"`
}

// SMTP is what reaches an SMTP submission server.
type SMTP struct {
	Host            string `json:"host"`
	Port            int    `json:"port"`
	TLSMode         string `json:"tls_mode"` // starttls, implicit or none
	Username        string `json:"username,omitempty"`
	FromEmail       string `json:"from_email,omitempty"`
	FromName        string `json:"from_name,omitempty"`
	ReplyTo         string `json:"reply_to,omitempty"`
	SubjectTemplate string `json:"subject_template,omitempty"`
	AllowPlaintext  bool   `json:"allow_plaintext,omitempty"`
}

// From is the address that mails come from.
func (s SMTP) From() string {
	if s.FromEmail != "" {
		return s.FromEmail
	}
	return s.Username
}

// Check reports what keeps the settings from working.
func (s SMTP) Check() error {
	var fields []apierr.Field
	switch {
	case s.Host == "":
		fields = append(fields, apierr.Field{Field: "credentials.smtp.host", Message: "is needed"})
	case !isHost(s.Host):
		fields = append(fields, apierr.Field{Field: "credentials.smtp.host", Message: "must be a host name or an address alone, for example smtp.example.org; the port has a field of its own"})
	}
	if s.From() == "" {
		fields = append(fields, apierr.Field{Field: "credentials.smtp.from_email", Message: "is needed where the username is no address"})
	}
	if s.TLSMode == "none" && s.Username != "" && !s.AllowPlaintext {
		fields = append(fields, apierr.Field{Field: "credentials.smtp.allow_plaintext", Message: "must be set to log in without TLS"})
	}
	if _, err := Parse(s.SubjectTemplate); err != nil {
		fields = append(fields, apierr.Field{Field: "credentials.smtp.subject_template", Message: err.Error()})
	}
	if len(fields) == 0 {
		return nil
	}
	return apierr.New(errorv1.Reason_REASON_VALIDATION_FAILED, "the request is not valid").WithFields(fields...)
}

// isHost reports whether s is the name of a host (RFC 1123, section 2.1; with underscores,
// which some have) or its address, and nothing beside.
func isHost(s string) bool {
	if _, err := netip.ParseAddr(s); err == nil {
		return true
	}
	for label := range strings.SplitSeq(strings.TrimSuffix(s, "."), ".") {
		if label == "" || len(label) > 63 || strings.Trim(label, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") != "" {
			return false
		}
	}
	return true
}

// Secret is what may be shown of a stored secret.
type Secret struct {
	Fingerprint string    `json:"fingerprint"`
	UpdatedAt   time.Time `json:"updated_at"`
}

// Channel is one authenticated connection of an account to a provider.
type Channel struct {
	ID        string
	AccountID string
	Name      string
	// ChannelType and Provider follow from the credentials.
	ChannelType string
	Provider    string
	Status      string
	IsEnabled   bool
	// Secrets is what is known of the credentials' secrets, and Sealed the secrets
	// themselves, by field name.
	Credentials Credentials       `db:"settings"`
	Secrets     map[string]Secret `db:"secrets"`
	Sealed      map[string][]byte `db:"sealed"`

	SenderName         string
	DefaultCountryCode string
	RateLimit          *int32 // messages per minute
	Priority           int32
	RetryCount         int32
	RetryInterval      int32 // seconds
	Connections        int32
	OnUnknown          string
	// SendEpoch changes with everything that a running send must notice.
	SendEpoch      int64
	LastVerifiedAt *time.Time
	ErrorMessage   string
	PausedUntil    *time.Time
	// CircuitUntil is when a channel that does not work is tried again, by one message;
	// nil while it works. CircuitTrips is how often that went wrong in a row.
	CircuitUntil *time.Time
	CircuitTrips int32
	// Throttle is a rate that the provider made the channel take; nil for none.
	Throttle  *Throttle
	CreatedAt time.Time
	UpdatedAt time.Time
}

// SubjectTemplate is the channel's own subject line; empty for none.
func (c *Channel) SubjectTemplate() string {
	smtp := c.Credentials.SMTP
	if smtp == nil {
		return ""
	}
	return smtp.SubjectTemplate
}

// PickChannel returns the channel of the type that a message should take: of those
// that are enabled the one with the highest priority, one that does not work now only
// where there is no other (decision D11); nil if there is none.
func PickChannel(list []*Channel, channelType string, now time.Time) *Channel {
	var best *Channel
	for _, c := range list {
		if c.ChannelType == channelType && c.IsEnabled && (best == nil || c.before(best, now)) {
			best = c
		}
	}
	return best
}

// before orders channels by what should be tried first; the older one wins a tie.
func (c *Channel) before(other *Channel, now time.Time) bool {
	switch broken := c.Broken(now); {
	case broken != other.Broken(now):
		return !broken
	case c.Priority != other.Priority:
		return c.Priority > other.Priority
	}
	return c.ID < other.ID
}

// transactionalShare is the part of a channel's connections that is single messages' own.
const transactionalShare = 4

// SplitConnections divides the channel's connections between single messages and
// group messages (decision D10): what each has in any case while both have work. One
// connection is both's, and they take turns.
func (c *Channel) SplitConnections() (transactional, bulk int32) {
	transactional = max(c.Connections/transactionalShare, 1)
	return transactional, max(c.Connections-transactional, 1)
}

// BulkShare of a channel's rate is open to group messages; the rest is kept for single
// ones.
const BulkShare = 0.9

// BulkTime is how long n messages of a send take at the channel's rate; false where it
// has none.
func (c *Channel) BulkTime(n int) (time.Duration, bool) {
	if c.RateLimit == nil || *c.RateLimit == 0 {
		return 0, false
	}
	return time.Duration(float64(n) / (float64(*c.RateLimit) * BulkShare) * float64(time.Minute)), true
}

// ShownStatus is the status to show: a channel that is switched off is disabled
// whatever was known of its connection.
func (c *Channel) ShownStatus(now time.Time) string {
	switch {
	case !c.IsEnabled:
		return ChannelDisabled
	case c.Status != ChannelError && c.PausedUntil != nil && c.PausedUntil.After(now):
		return ChannelRateLimited
	case c.Status == ChannelConnected && c.CircuitUntil != nil:
		return ChannelDisconnected
	}
	return c.Status
}
