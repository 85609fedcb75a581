// Package vault seals secrets for storage. Every value gets its own random
// data key, which is wrapped by a key derived from the master key; both are
// AES-256-GCM, bound to the place the value belongs to, so a sealed value that
// is copied to another account, row, field or version does not open.
//
// A sealed value is, in order: format version (1 byte, 1), id of the wrapping
// key (8 bytes), nonce (12) and wrapped data key (48), nonce (12) and
// ciphertext with its tag (plaintext + 16).
package vault

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
)

// The formats of a sealed value.
const (
	// formatPlace binds it to its place alone.
	formatPlace = 1
	// formatDestination binds it to its destination too.
	formatDestination = 2
)

const (
	keySize     = 32
	keyIDSize   = 8
	nonceSize   = 12
	tagSize     = 16
	wrappedSize = keySize + tagSize
	headerSize  = 1 + keyIDSize
	// overhead is how much longer a sealed value is than its plaintext.
	overhead = headerSize + nonceSize + wrappedSize + nonceSize + tagSize
)

// MaxPlaintext is the longest plaintext that Seal accepts, in bytes.
const MaxPlaintext = 1 << 20

var (
	// ErrUnknownKey means that a value was sealed with a master key that this
	// vault does not hold.
	ErrUnknownKey = errors.New("the value was sealed with another master key")
	// ErrCorrupt means that a value is damaged, of an unknown format, or belongs
	// to another account, resource, field, version or destination.
	ErrCorrupt = errors.New("the sealed value is damaged or belongs elsewhere")
	// ErrUnbound means that a value was sealed without the destination that it now
	// has. Only Rewrap opens it, and binds it.
	ErrUnbound = errors.New("the sealed value is not bound to its destination yet")
)

// AAD names the place a secret belongs to. Seal and Open need the same one.
type AAD struct {
	// Account is the id of the owning account.
	Account string
	// Resource is the id of the row that holds the secret.
	Resource string
	// Field is the name of the secret within the row.
	Field string
	// Version counts the values the field has had.
	Version int
	// Destination is who gets the secret and how it is protected on the way, in a
	// canonical form (secrets.Destination); empty for a secret that is sent nowhere.
	Destination []byte
}

// format is that of values sealed for this place.
func (a AAD) format() byte {
	if len(a.Destination) > 0 {
		return formatDestination
	}
	return formatPlace
}

// Vault seals and opens secrets. It is safe for concurrent use.
type Vault struct {
	current     keyID
	wrap        map[keyID]cipher.AEAD
	fingerprint []byte
}

type keyID [keyIDSize]byte

// New returns a vault that seals with master and also opens what was sealed with
// one of the previous keys. Keys are 32 bytes, as ParseKey returns them.
func New(master []byte, previous ...[]byte) (*Vault, error) {
	v := &Vault{wrap: make(map[keyID]cipher.AEAD, 1+len(previous))}
	for i, key := range append([][]byte{master}, previous...) {
		id, err := v.add(key)
		if err != nil {
			return nil, err
		}
		if i == 0 {
			v.current = id
		}
	}
	var err error
	if v.fingerprint, err = derive(master, "fingerprint"); err != nil {
		return nil, err
	}
	return v, nil
}

// add derives what a master key is used for and returns the key's id.
func (v *Vault) add(master []byte) (keyID, error) {
	if len(master) != keySize {
		return keyID{}, fmt.Errorf("master key must be %d bytes, it has %d", keySize, len(master))
	}
	wrapKey, err := derive(master, "wrap")
	if err != nil {
		return keyID{}, err
	}
	idBytes, err := derive(master, "id")
	if err != nil {
		return keyID{}, err
	}
	aead, err := newAEAD(wrapKey)
	if err != nil {
		return keyID{}, err
	}
	id := keyID(idBytes[:keyIDSize])
	v.wrap[id] = aead
	return id, nil
}

func derive(master []byte, purpose string) ([]byte, error) {
	key, err := hkdf.Key(sha256.New, master, nil, "turumba vault v1 "+purpose, keySize)
	if err != nil {
		return nil, fmt.Errorf("derive %s key: %w", purpose, err)
	}
	return key, nil
}

func newAEAD(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("set up cipher: %w", err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("set up cipher: %w", err)
	}
	return aead, nil
}

// KeyID returns the id of the current master key, 16 hex digits. It is safe to
// store and to show: it tells keys apart and nothing else.
func (v *Vault) KeyID() string { return hex.EncodeToString(v.current[:]) }

// Seal encrypts plaintext (at most MaxPlaintext bytes) for the place aad.
func (v *Vault) Seal(aad AAD, plaintext []byte) ([]byte, error) {
	if len(plaintext) > MaxPlaintext {
		return nil, fmt.Errorf("seal: plaintext has %d bytes, at most %d are allowed", len(plaintext), MaxPlaintext)
	}
	dataKey := random(keySize)
	aead, err := newAEAD(dataKey)
	if err != nil {
		return nil, err
	}
	sealed := make([]byte, 0, overhead+len(plaintext))
	sealed = v.appendEnvelope(sealed, aad, dataKey)
	nonce := random(nonceSize)
	sealed = append(sealed, nonce...)
	return aead.Seal(sealed, nonce, plaintext, aad.bytes("data")), nil
}

// appendEnvelope writes the header and the data key wrapped by the current key.
func (v *Vault) appendEnvelope(dst []byte, aad AAD, dataKey []byte) []byte {
	dst = append(dst, aad.format())
	dst = append(dst, v.current[:]...)
	nonce := random(nonceSize)
	dst = append(dst, nonce...)
	return v.wrap[v.current].Seal(dst, nonce, dataKey, aad.bytes("key"))
}

// random returns n random bytes; crypto/rand never fails (it ends the program).
func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return b
}

// Open decrypts a sealed value. The error is ErrUnknownKey, ErrCorrupt or
// ErrUnbound.
func (v *Vault) Open(aad AAD, sealed []byte) ([]byte, error) {
	dataKey, rest, err := v.unwrap(aad, sealed)
	if err != nil {
		return nil, err
	}
	aead, err := newAEAD(dataKey)
	if err != nil {
		return nil, err
	}
	plaintext, err := aead.Open(nil, rest[:nonceSize], rest[nonceSize:], aad.bytes("data"))
	if err != nil {
		return nil, ErrCorrupt
	}
	return plaintext, nil
}

// Rewrap returns sealed with its data key wrapped by the current master key, and
// whether that changed anything. The ciphertext itself stays, but for a value
// without the destination that aad has: that one is sealed anew, for aad. So the
// caller must know that aad has the destination for which the value was stored; it
// holds the lock of its row. The error is ErrUnknownKey or ErrCorrupt.
func (v *Vault) Rewrap(aad AAD, sealed []byte) ([]byte, bool, error) {
	if v.Unbound(aad, sealed) {
		return v.bind(aad, sealed)
	}
	dataKey, rest, err := v.unwrap(aad, sealed)
	if err != nil {
		return nil, false, err
	}
	if keyID(sealed[1:headerSize]) == v.current {
		return sealed, false, nil
	}
	out := v.appendEnvelope(make([]byte, 0, len(sealed)), aad, dataKey)
	return append(out, rest...), true, nil
}

// Unbound reports whether a value was sealed without the destination that aad has:
// Rewrap is needed before it opens.
func (v *Vault) Unbound(aad AAD, sealed []byte) bool {
	return len(sealed) > 0 && sealed[0] == formatPlace && aad.format() == formatDestination
}

// bind seals a value without a destination anew, for the one of aad.
func (v *Vault) bind(aad AAD, sealed []byte) ([]byte, bool, error) {
	former := aad
	former.Destination = nil
	plaintext, err := v.Open(former, sealed)
	if err != nil {
		return nil, false, err
	}
	again, err := v.Seal(aad, plaintext)
	return again, err == nil, err
}

// unwrap reads the envelope and returns the data key and what follows it, which
// is at least a nonce and a tag long.
func (v *Vault) unwrap(aad AAD, sealed []byte) (dataKey, rest []byte, err error) {
	switch {
	case len(sealed) < overhead:
		return nil, nil, ErrCorrupt
	case v.Unbound(aad, sealed):
		return nil, nil, ErrUnbound
	case sealed[0] != aad.format():
		return nil, nil, ErrCorrupt
	}
	aead, ok := v.wrap[keyID(sealed[1:headerSize])]
	if !ok {
		return nil, nil, ErrUnknownKey
	}
	nonce := sealed[headerSize : headerSize+nonceSize]
	wrapped := sealed[headerSize+nonceSize : headerSize+nonceSize+wrappedSize]
	dataKey, err = aead.Open(nil, nonce, wrapped, aad.bytes("key"))
	if err != nil {
		return nil, nil, ErrCorrupt
	}
	return dataKey, sealed[headerSize+nonceSize+wrappedSize:], nil
}

// bytes encodes the place and the layer unambiguously: the format comes first, and
// each text is preceded by its length.
func (a AAD) bytes(layer string) []byte {
	out := []byte{a.format()}
	for _, text := range []string{layer, a.Account, a.Resource, a.Field} {
		out = binary.BigEndian.AppendUint32(out, uint32(len(text)))
		out = append(out, text...)
	}
	out = binary.BigEndian.AppendUint64(out, uint64(a.Version))
	return append(out, a.Destination...)
}

// Fingerprint returns 8 hex digits that let a person see whether the secret at a place
// changed. It says nothing about secrets elsewhere: two places with the same secret have
// different ones, so that nobody can guess another's secret by storing guesses of their own.
// Without the master key nothing about the secret follows from it. It changes when the
// master key does, and not with the destination.
func (v *Vault) Fingerprint(place AAD, secret []byte) string {
	place.Destination = nil
	mac := hmac.New(sha256.New, v.fingerprint)
	mac.Write(place.bytes("fingerprint"))
	mac.Write(secret)
	return hex.EncodeToString(mac.Sum(nil)[:4])
}
