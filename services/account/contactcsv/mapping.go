package contactcsv

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"unicode"

	account "github.com/turumba/turumba/services/account"
)

// suggestions are the fields that column names stand for, in their plain form.
var suggestions = map[string]string{
	"full_name": "name", "fullname": "name", "contact": "name", "contact_name": "name", "display_name": "name",
	"firstname": "first_name", "given_name": "first_name", "forename": "first_name", "first": "first_name",
	"lastname": "last_name", "surname": "last_name", "family_name": "last_name", "last": "last_name",
	"e_mail": "email", "email_address": "email", "e_mail_address": "email", "mail": "email",
	"phone_number": "phone", "mobile": "phone", "mobile_number": "phone", "mobile_phone": "phone", "cell": "phone",
	"cell_phone": "phone", "tel": "phone", "telephone": "phone", "msisdn": "phone",
	"tag": "tags", "labels": "tags", "lang": "language", "locale": "language", "time_zone": "timezone", "tz": "timezone",
	"externalid": "external_id", "customer_id": "external_id", "crm_id": "external_id",
	"preferred_channel": "preferred_channel_type", "telegram_id": "telegram", "whatsapp_id": "whatsapp", "messenger_id": "messenger",
	"attributes": "metadata",
}

// Map decides where the columns of a file go: to what chosen says by their names,
// else to the field that the name suggests, else to the free data. Errors are
// VALIDATION_FAILED.
func Map(header []string, chosen map[string]string) ([]account.ImportColumn, error) {
	columns, taken := make([]account.ImportColumn, len(header)), map[string]string{}
	for name, field := range chosen {
		if !slices.Contains(header, name) {
			return nil, account.InvalidField("mapping", fmt.Sprintf("names the column %q, which the file does not have", name))
		}
		if field != "" && !known(field) {
			return nil, account.InvalidField("mapping", fmt.Sprintf("names the field %q, which a contact does not have", field))
		}
	}
	for i, name := range header {
		columns[i] = account.ImportColumn{Header: name, Field: chosen[name]}
		if columns[i].Field == "" {
			continue
		}
		if other, twice := taken[columns[i].Field]; twice {
			return nil, account.InvalidField("mapping", fmt.Sprintf("sends the columns %q and %q to the field %s", other, name, columns[i].Field))
		}
		taken[columns[i].Field] = name
	}
	for i, name := range header {
		if _, said := chosen[name]; said {
			continue
		}
		field := suggest(name)
		if _, twice := taken[field]; twice {
			field = metadataPrefix + plain(name)
		}
		if _, twice := taken[field]; twice {
			field = ""
		}
		columns[i].Field = field
		if field != "" {
			taken[field] = name
		}
	}
	if !slices.ContainsFunc(columns, func(c account.ImportColumn) bool { return byName[c.Field] != nil && byName[c.Field].identifies }) {
		return nil, account.InvalidField("mapping", "no column is a name, an address, a phone number or an id")
	}
	return columns, nil
}

// known reports whether a column can go to the field.
func known(name string) bool {
	if f := byName[name]; f != nil {
		return f.set != nil
	}
	key, isKey := strings.CutPrefix(name, metadataPrefix)
	return isKey && key != ""
}

// suggest is the field that a column's name suggests; empty leaves it out.
func suggest(header string) string {
	name := plain(header)
	f := byName[name]
	switch {
	case name == "" || f != nil && f.set == nil: // a column of our own export
		return ""
	case strings.HasPrefix(header, metadataPrefix) && len(header) > len(metadataPrefix):
		return header
	case f != nil:
		return name
	case suggestions[name] != "":
		return suggestions[name]
	}
	return metadataPrefix + name
}

// plain is a column's name in lower case, with _ for all that is no letter or digit.
func plain(header string) string {
	var b strings.Builder
	gap := false
	for _, c := range strings.ToLower(header) {
		if !unicode.IsLetter(c) && !unicode.IsDigit(c) && !unicode.IsMark(c) {
			gap = b.Len() > 0
			continue
		}
		if gap {
			b.WriteByte('_')
			gap = false
		}
		b.WriteRune(c)
	}
	return b.String()
}

// Contact is what a row says of a contact. The error names the first field that
// cannot be read.
func Contact(columns []account.ImportColumn, cells []string) (*account.Contact, error) {
	c := &account.Contact{}
	var keys map[string]string
	for i, column := range columns {
		value := unguard(cells[i])
		if column.Field == "" || value == "" {
			continue
		}
		if f := byName[column.Field]; f != nil {
			if err := f.set(c, value); err != nil {
				return nil, err
			}
			continue
		}
		if keys == nil {
			keys = map[string]string{}
		}
		keys[strings.TrimPrefix(column.Field, metadataPrefix)] = value
	}
	if keys == nil {
		return c, nil
	}
	over, err := json.Marshal(keys)
	if err != nil {
		return nil, fmt.Errorf("write metadata: %w", err)
	}
	return c, c.Merge(&account.Contact{Metadata: over})
}
