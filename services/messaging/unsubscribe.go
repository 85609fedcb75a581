package messaging

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/google/uuid"

	"github.com/turumba/turumba/kit/apierr"
)

const (
	// UnsubscribeKey names the service's key that the links are made with.
	UnsubscribeKey = "unsubscribe"
	// UnsubscribePath is where the links lead, under the public URL.
	UnsubscribePath = "/unsubscribe/"
	// VariableUnsubscribe is the variable that becomes the recipient's link.
	VariableUnsubscribe = "UNSUBSCRIBE_URL"

	unsubscribeVersion = 1
)

var errLink = apierr.NotFound("unsubscribe link")

// WayOut is who wants no more messages: an address on one type of channel of an account.
type WayOut struct {
	AccountID, ChannelType, Address string
}

// Unsubscriber makes the links by which recipients unsubscribe, and reads them. A link
// needs no login and no row, says nothing to who reads it in a log, cannot be made up,
// and is the same each time, so that every attempt of a message is.
type Unsubscriber struct {
	base string
	mac  []byte
	aead cipher.AEAD
}

// NewUnsubscriber makes links under the public URL; without one it only reads them.
func NewUnsubscriber(publicURL string, key []byte) (*Unsubscriber, error) {
	u := &Unsubscriber{base: strings.TrimSuffix(publicURL, "/")}
	sealKey, err := hkdf.Key(sha256.New, key, nil, "turumba unsubscribe v1 seal", 32)
	if err != nil {
		return nil, fmt.Errorf("derive the unsubscribe key: %w", err)
	}
	if u.mac, err = hkdf.Key(sha256.New, key, nil, "turumba unsubscribe v1 nonce", 32); err != nil {
		return nil, fmt.Errorf("derive the unsubscribe key: %w", err)
	}
	block, err := aes.NewCipher(sealKey)
	if err != nil {
		return nil, fmt.Errorf("set up the unsubscribe cipher: %w", err)
	}
	if u.aead, err = cipher.NewGCM(block); err != nil {
		return nil, fmt.Errorf("set up the unsubscribe cipher: %w", err)
	}
	return u, nil
}

// CheckPublicURL refuses what mails cannot be built on; none at all is fine.
func CheckPublicURL(publicURL string) error {
	u, err := url.Parse(publicURL)
	if publicURL != "" && (err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil) {
		return errors.New("PUBLIC_URL must be like https://mail.example.org")
	}
	return nil
}

// URL is the link of a recipient; empty where no public URL is known. u may be nil.
func (u *Unsubscriber) URL(w WayOut) string {
	if u == nil || u.base == "" || w.Address == "" {
		return ""
	}
	return u.base + UnsubscribePath + u.Token(w)
}

// Token seals who it is. Its nonce is a MAC of what it seals: equal only for equals.
func (u *Unsubscriber) Token(w WayOut) string {
	account := uuid.MustParse(w.AccountID) // our own
	plain := append([]byte{unsubscribeVersion}, account[:]...)
	plain = append(append(append(plain, w.ChannelType...), 0), AddressKey(w.ChannelType, w.Address)...)
	nonce := hmac.New(sha256.New, u.mac)
	nonce.Write(plain)
	token := nonce.Sum(nil)[:u.aead.NonceSize()]
	return base64.RawURLEncoding.EncodeToString(u.aead.Seal(token, token, plain, nil))
}

// Open reads a token; NOT_FOUND for one that is not ours.
func (u *Unsubscriber) Open(token string) (WayOut, error) {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil || len(raw) < u.aead.NonceSize() {
		return WayOut{}, errLink
	}
	n := u.aead.NonceSize()
	plain, err := u.aead.Open(nil, raw[:n], raw[n:], nil)
	if err != nil || len(plain) < 1+16 || plain[0] != unsubscribeVersion {
		return WayOut{}, errLink
	}
	channelType, address, ok := strings.Cut(string(plain[17:]), "\x00")
	if !ok {
		return WayOut{}, errLink
	}
	return WayOut{AccountID: uuid.UUID(plain[1:17]).String(), ChannelType: channelType, Address: address}, nil
}
