package messaging

import (
	"strings"
	"time"
)

// Recipient is what a send knows of a contact, or of somebody given by address.
type Recipient struct {
	ContactID string
	// AddressID and Given are the id and the address of a recipient given by address,
	// who is no contact; of a resend, those of the failed message, which may have been a
	// contact's.
	AddressID string
	Given     string
	// Values win over all other sources.
	Values    map[string]string
	Name      string
	FirstName string
	LastName  string
	Email     string
	Phone     string
	// Attributes are the contact's free data as text, by variable name.
	Attributes map[string]string
}

// ID is that of the recipient given by address, or of the contact.
func (r *Recipient) ID() string {
	if r.AddressID != "" {
		return r.AddressID
	}
	return r.ContactID
}

// Address is where a channel of the type reaches the contact; empty when it cannot.
func (r *Recipient) Address(channelType string) string {
	if r.AddressID != "" {
		return r.Given
	}
	switch channelType {
	case TypeEmail:
		return r.Email
	case "sms", "smpp", "whatsapp":
		return r.Phone
	case "telegram", "messenger":
		return r.Attributes[VariableName(channelType+chatID)]
	}
	return ""
}

// chatID ends the names of attributes by which a platform reaches a contact.
const chatID = "_chat_id"

// IsAddress reports whether the variable is of an attribute by which a platform reaches a
// contact.
func IsAddress(variable string) bool { return strings.HasSuffix(variable, VariableName(chatID)) }

// Sources are the values that are the same for every recipient of a send.
type Sources struct {
	Custom      map[string]string
	AccountName string
	SenderName  string
	SenderEmail string
	Now         time.Time
	// WayOut is the link by which a recipient unsubscribes; nil for none.
	WayOut func(Recipient) string
}

// Lookup finds the value of a variable: the values given for the recipient, custom
// values, then the contact's own
// fields, its free data, the account, the sender and the system (decision D3).
func (s *Sources) Lookup(r *Recipient) func(name string) (string, bool) {
	return func(name string) (string, bool) {
		if v, ok := r.Values[name]; ok {
			return v, true
		}
		if v, ok := s.Custom[name]; ok {
			return v, true
		}
		if v := r.field(name); v != "" {
			return v, true
		}
		if v := r.Attributes[name]; v != "" {
			return v, true
		}
		if name == VariableUnsubscribe && s.WayOut != nil {
			v := s.WayOut(*r)
			return v, v != ""
		}
		v := s.common(name)
		return v, v != ""
	}
}

func (r *Recipient) field(name string) string {
	switch name {
	case "FIRST_NAME":
		if r.FirstName == "" {
			first, _ := splitName(r.Name)
			return first
		}
		return r.FirstName
	case "LAST_NAME":
		if r.LastName == "" && r.FirstName == "" {
			_, last := splitName(r.Name)
			return last
		}
		return r.LastName
	case "NAME", "FULL_NAME":
		return r.Name
	case "EMAIL":
		return r.Email
	case "PHONE":
		return r.Phone
	}
	return ""
}

func (s *Sources) common(name string) string {
	switch name {
	case "ACCOUNT_NAME":
		return s.AccountName
	case "SENDER_NAME":
		return s.SenderName
	case "SENDER_EMAIL":
		return s.SenderEmail
	case "CURRENT_DATE":
		return s.Now.UTC().Format(time.DateOnly)
	case "CURRENT_TIME":
		return s.Now.UTC().Format("15:04")
	}
	return ""
}

func splitName(full string) (first, last string) {
	full = strings.TrimSpace(full)
	i := strings.LastIndexByte(full, ' ')
	if i < 0 {
		return full, ""
	}
	return strings.TrimSpace(full[:i]), full[i+1:]
}

// VariableName is the variable of a free attribute: upper case, everything but
// letters and digits an underscore.
func VariableName(key string) string {
	var b strings.Builder
	for _, r := range strings.ToUpper(key) {
		if (r >= 'A' && r <= 'Z') || (r >= '0' && r <= '9') {
			b.WriteRune(r)
		} else {
			b.WriteByte('_')
		}
	}
	return b.String()
}

// SampleRecipient is the person of a preview for nobody in particular.
func SampleRecipient() Recipient {
	return Recipient{Name: "Selam Tesfaye", FirstName: "Selam", LastName: "Tesfaye", Email: "selam@example.org", Phone: "+251911000000"}
}
