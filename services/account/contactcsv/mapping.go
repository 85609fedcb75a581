package contactcsv

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"unicode"

	account "github.com/turumba/turumba/services/account"
)

// suggestions are the fields that column names stand for, in their plain form: in the
// languages of our users, and as the exports of Google Contacts and Outlook have them.
var suggestions = func() map[string]string {
	out := map[string]string{}
	for field, names := range map[string]string{
		"name":       "full_name fullname contact contact_name display_name vollständiger_name nom_complet nombre_completo nome_completo ስም ሙሉ_ስም",
		"first_name": "firstname given_name forename first vorname prénom prenom nombre nombres primer_nombre nome primeiro_nome የመጀመሪያ_ስም",
		"last_name":  "lastname surname family_name last nachname familienname zuname nom nom_de_famille apellido apellidos sobrenome apelido የአባት_ስም",
		"email": "e_mail email_address e_mail_address mail e_mail_1_value email_1_value e_mail_adresse email_adresse mailadresse courriel adresse_e_mail " +
			"adresse_email adresse_mail adresse_électronique correo correo_electrónico correo_electronico correio correio_eletrônico correio_electrónico ኢሜይል ኢሜል",
		"phone": "phone_number mobile mobile_number mobile_phone cell cell_phone tel telephone msisdn phone_1_value telefon telefonnummer handy handynummer mobil " +
			"mobilnummer mobiltelefon rufnummer téléphone téléphone_portable portable numéro_de_téléphone numero_de_telephone teléfono telefono móvil movil celular " +
			"número_de_teléfono telefone telemóvel telemovel ስልክ ስልክ_ቁጥር የስልክ_ቁጥር ሞባይል",
		"tags":                   "tag labels group_membership categories schlagwörter étiquettes etiquetas",
		"language":               "lang locale sprache langue idioma ቋንቋ",
		"timezone":               "time_zone tz zeitzone fuseau_horaire zona_horaria fuso_horário",
		"external_id":            "externalid customer_id crm_id kundennummer",
		"preferred_channel_type": "preferred_channel", "telegram": "telegram_id", "whatsapp": "whatsapp_id", "messenger": "messenger_id",
		"metadata": "attributes",
	} {
		for _, name := range strings.Fields(names) {
			out[name] = field
		}
	}
	return out
}()

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
	if c.Name == strings.TrimSpace(c.FirstName+" "+c.LastName) {
		c.Name = "" // as an export shows those without one; else it would stay when they change
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
