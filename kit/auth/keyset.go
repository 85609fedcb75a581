package auth

import (
	"context"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"golang.org/x/sync/singleflight"

	"github.com/turumba/turumba/kit/clock"
)

// Limits of the key set (decision B1).
const (
	maxJWKS      = 256 << 10        // bytes of a JWKS document
	refreshFloor = 30 * time.Second // between two refreshes, however many unknown kids come
	refreshEvery = 10 * time.Minute // a removed key is dropped after at most 15 minutes
	staleLimit   = 24 * time.Hour   // known keys are good that long while the source is down
	minRSABits   = 2048
)

// JWKSSource returns the current JWKS document.
type JWKSSource func(ctx context.Context) ([]byte, error)

// HTTPSource reads the JWKS from a URL.
func HTTPSource(client *http.Client, url string) JWKSSource {
	return func(ctx context.Context) ([]byte, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return nil, fmt.Errorf("read the JWKS: %w", err)
		}
		res, err := client.Do(req)
		if err != nil {
			return nil, fmt.Errorf("read the JWKS: %w", err)
		}
		defer func() { _ = res.Body.Close() }() // read only
		if res.StatusCode != http.StatusOK {
			return nil, fmt.Errorf("read the JWKS: status %d", res.StatusCode)
		}
		return io.ReadAll(io.LimitReader(res.Body, maxJWKS+1))
	}
}

// keySet verifies signatures by the keys of a JWKS source. It implements
// go-oidc's KeySet.
type keySet struct {
	source JWKSSource
	clock  clock.Clock
	flight singleflight.Group

	mu        sync.RWMutex
	keys      map[string]*rsa.PublicKey
	fetchedAt time.Time // of keys
	triedAt   time.Time // of the last refresh, good or not
	changed   func()    // called when a key is gone or new
}

// errUnknownKey is a token whose kid is not in the key set.
var errUnknownKey = errors.New("the token's key is not known")

// VerifySignature returns the payload of a JWS whose signature one of the keys
// made. Only RS256 is accepted; header fields that bring keys are ignored.
func (k *keySet) VerifySignature(ctx context.Context, raw string) ([]byte, error) {
	jws, err := jose.ParseSignedCompact(raw, []jose.SignatureAlgorithm{jose.RS256})
	if err != nil {
		return nil, fmt.Errorf("malformed token: %w", err)
	}
	kid := jws.Signatures[0].Protected.KeyID
	key, err := k.key(ctx, kid)
	if err != nil {
		return nil, err
	}
	payload, err := jws.Verify(key)
	if err != nil {
		return nil, fmt.Errorf("verify the signature: %w", err)
	}
	return payload, nil
}

// key finds a key by id, refreshing when it is unknown or the set has aged.
func (k *keySet) key(ctx context.Context, kid string) (*rsa.PublicKey, error) {
	now := k.clock.Now()
	k.mu.RLock()
	key, age, sinceTry := k.keys[kid], now.Sub(k.fetchedAt), now.Sub(k.triedAt)
	k.mu.RUnlock()
	fresh := key != nil && age < refreshEvery
	if !fresh && sinceTry >= refreshFloor {
		if err := k.refresh(ctx); err != nil && (key == nil || age >= staleLimit) {
			return nil, err
		}
		k.mu.RLock()
		key, age = k.keys[kid], now.Sub(k.fetchedAt)
		k.mu.RUnlock()
	}
	if age >= staleLimit {
		return nil, errKeysUnavailable // none were read yet, or too long ago
	}
	if key == nil {
		return nil, errUnknownKey
	}
	return key, nil
}

// refresh reads the keys once, for everybody who waits.
func (k *keySet) refresh(ctx context.Context) error {
	_, err, _ := k.flight.Do("", func() (any, error) {
		// Who waits first must not end it for the others.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		doc, err := k.source(ctx)
		var keys map[string]*rsa.PublicKey
		if err == nil {
			keys, err = parseJWKS(doc)
		}
		now := k.clock.Now()
		k.mu.Lock()
		defer k.mu.Unlock()
		k.triedAt = now
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errKeysUnavailable, err)
		}
		if !sameKeys(k.keys, keys) && k.changed != nil {
			k.changed()
		}
		k.keys, k.fetchedAt = keys, now
		return nil, nil
	})
	return err
}

// errKeysUnavailable is a JWKS that cannot be read.
var errKeysUnavailable = errors.New("the token keys cannot be read")

// parseJWKS reads the RSA signing keys of a JWKS; others are left out.
func parseJWKS(doc []byte) (map[string]*rsa.PublicKey, error) {
	if len(doc) > maxJWKS {
		return nil, errors.New("the JWKS is larger than 256 KiB")
	}
	var set jose.JSONWebKeySet
	if err := json.Unmarshal(doc, &set); err != nil {
		return nil, fmt.Errorf("the JWKS is malformed: %w", err)
	}
	keys := map[string]*rsa.PublicKey{}
	for _, jwk := range set.Keys {
		key, ok := jwk.Key.(*rsa.PublicKey)
		if !ok || jwk.KeyID == "" || key.N.BitLen() < minRSABits || (jwk.Use != "" && jwk.Use != "sig") || (jwk.Algorithm != "" && jwk.Algorithm != string(jose.RS256)) {
			continue
		}
		keys[jwk.KeyID] = key
	}
	return keys, nil
}

func sameKeys(a, b map[string]*rsa.PublicKey) bool {
	if len(a) != len(b) {
		return false
	}
	for id, key := range a {
		if other, ok := b[id]; !ok || !key.Equal(other) {
			return false
		}
	}
	return true
}
