package account

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"slices"
	"time"
)

// keyMark begins every secret, so that scanners of repositories know one.
const keyMark = "tsk_"

// prefixLength is how much of a secret is kept for people to know it again.
const prefixLength = len(keyMark) + 6

// APIKey lets a machine act in one account.
type APIKey struct {
	ID              string
	AccountID       string
	Name            string
	Prefix          string
	SecretHash      []byte
	Permissions     []string // sorted
	CreatedByUserID string
	ExpiresAt       *time.Time
	LastUsedAt      *time.Time
	RevokedAt       *time.Time
	CreatedAt       time.Time
}

// NewSecret gives the key a new secret and returns it, this once. It has 130
// random bits; its hash needs no salt or work factor.
func (k *APIKey) NewSecret() string {
	secret := keyMark + rand.Text()
	sum := sha256.Sum256([]byte(secret))
	k.Prefix, k.SecretHash = secret[:prefixLength], sum[:]
	return secret
}

// Opens reports whether the secret is the key's and the key still works.
func (k *APIKey) Opens(secret string, now time.Time) bool {
	sum := sha256.Sum256([]byte(secret))
	return subtle.ConstantTimeCompare(sum[:], k.SecretHash) == 1 && k.Works(now)
}

// Works reports whether the key is neither revoked nor over.
func (k *APIKey) Works(now time.Time) bool {
	return k.RevokedAt == nil && (k.ExpiresAt == nil || now.Before(*k.ExpiresAt))
}

// Grants are the key's permissions that its creator still holds.
func (k *APIKey) Grants(creator []string) []string {
	return slices.DeleteFunc(slices.Clone(k.Permissions), func(p string) bool { return !slices.Contains(creator, p) })
}
