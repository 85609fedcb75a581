package auth

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// header are the fields of a JWS header that decide anything here.
type header struct {
	Algorithm string          `json:"alg"`
	KeyID     string          `json:"kid"`
	Type      string          `json:"typ"`
	Critical  json.RawMessage `json:"crit"`
}

// decodeHeader reads a header strictly: one JSON object, no key twice.
func decodeHeader(segment string) (header, error) {
	var h header
	b, err := base64.RawURLEncoding.DecodeString(segment)
	if err != nil {
		return h, fmt.Errorf("the token's header is not base64url: %w", err)
	}
	if len(b) > maxHeader {
		return h, errors.New("the token's header is larger than 1 KiB")
	}
	if err := noDuplicateKeys(b); err != nil {
		return h, fmt.Errorf("the token's header: %w", err)
	}
	if err := json.Unmarshal(b, &h); err != nil {
		return h, fmt.Errorf("the token's header is not JSON: %w", err)
	}
	return h, nil
}

// noDuplicateKeys refuses a top-level key that comes twice, in whatever case:
// parsers disagree about which one counts, and Go's ignores case.
func noDuplicateKeys(b []byte) error {
	dec := json.NewDecoder(bytes.NewReader(b))
	if tok, err := dec.Token(); err != nil || tok != json.Delim('{') {
		return errors.New("not a JSON object")
	}
	seen := map[string]bool{}
	for dec.More() {
		tok, err := dec.Token()
		if err != nil {
			return fmt.Errorf("not JSON: %w", err)
		}
		key, _ := tok.(string)
		key = strings.ToLower(key)
		if seen[key] {
			return fmt.Errorf("%q comes twice", key)
		}
		seen[key] = true
		var skip json.RawMessage
		if err := dec.Decode(&skip); err != nil {
			return fmt.Errorf("not JSON: %w", err)
		}
	}
	if _, err := dec.Token(); err != nil {
		return fmt.Errorf("not JSON: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("trailing data")
	}
	return nil
}
