package query

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"slices"
	"strconv"
)

const macSize = 16

// digest names the list that a token belongs to: the resource, the accounts it
// reads, its filters in any order and its sort keys.
func (s *Spec) digest(scope, filters []string, keys []sortKey) []byte {
	h := sha256.New()
	write := func(texts ...string) {
		_ = binary.Write(h, binary.BigEndian, uint32(len(texts)))
		for _, t := range texts {
			_ = binary.Write(h, binary.BigEndian, uint32(len(t)))
			_, _ = h.Write([]byte(t))
		}
	}
	sorts := make([]string, len(keys))
	for i, k := range keys {
		sorts[i] = k.field.name + ":" + strconv.FormatBool(k.desc)
	}
	write("page token v1", s.name)
	write(scope...)
	write(slices.Sorted(slices.Values(filters))...)
	write(sorts...)
	return h.Sum(nil)
}

func (s *Spec) mac(digest, payload []byte) []byte {
	mac := hmac.New(sha256.New, s.table.TokenKey)
	mac.Write(digest)
	mac.Write(payload)
	return mac.Sum(nil)[:macSize]
}

// sealToken returns the token of the page that begins after a row with the given
// sort values.
func (s *Spec) sealToken(digest []byte, values []*string) (string, error) {
	payload, err := json.Marshal(values)
	if err != nil {
		return "", invalidSort("the sort values of this page cannot be carried on")
	}
	token := base64.RawURLEncoding.EncodeToString(append(s.mac(digest, payload), payload...))
	if len(token) > MaxTokenLength {
		return "", invalidSort("the sort values of this page are too long to be carried on; sort by fewer text fields")
	}
	return token, nil
}

// openToken returns the sort values in a token that was made for the same list.
func (s *Spec) openToken(token string, digest []byte, keys int) ([]*string, error) {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil || len(raw) < macSize {
		return nil, invalidPage("page_token is not valid")
	}
	payload := raw[macSize:]
	if !hmac.Equal(raw[:macSize], s.mac(digest, payload)) {
		return nil, invalidPage("page_token is not valid or belongs to another list: repeat it with the same filters and sorts")
	}
	var values []*string
	if err := json.Unmarshal(payload, &values); err != nil || len(values) != keys {
		return nil, invalidPage("page_token is not valid")
	}
	return values, nil
}
