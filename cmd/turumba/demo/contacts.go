package demo

import (
	"bytes"
	_ "embed"
	"encoding/csv"
	"fmt"
	"io"
)

// contactsCSV is the demo's address book: first_name,last_name,email,city.
//
//go:embed contacts.csv
var contactsCSV []byte

// contact is what the demo stores of a person.
type contact struct {
	FirstName string            `json:"first_name"`
	LastName  string            `json:"last_name"`
	Email     string            `json:"email,omitempty"`
	Phone     string            `json:"phone,omitempty"`
	Metadata  map[string]string `json:"metadata"`
}

// readContacts returns the first n contacts of the CSV; beyond its size the
// rows repeat with a number in the address, so that any n gives the same people.
func readContacts(n int) ([]contact, error) {
	r := csv.NewReader(bytes.NewReader(contactsCSV))
	if _, err := r.Read(); err != nil {
		return nil, fmt.Errorf("read contacts.csv: %w", err)
	}
	var book []contact
	for {
		row, err := r.Read()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("read contacts.csv: %w", err)
		}
		book = append(book, contact{FirstName: row[0], LastName: row[1], Email: row[2], Metadata: map[string]string{"city": row[3]}})
	}
	out := make([]contact, 0, n)
	for i := range n {
		c := book[i%len(book)]
		if lap := i / len(book); lap > 0 {
			c.Email = fmt.Sprintf("p%d.%s", lap, c.Email)
		}
		out = append(out, c)
	}
	return out, nil
}
