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
	"sync/atomic"
	"time"

	"github.com/go-jose/go-jose/v4"
	"golang.org/x/sync/singleflight"

	"github.com/turumba/turumba/kit/clock"
)

// Limits of the key set (ADR 0046, which amends decision B1).
const (
	maxJWKS      = 256 << 10        // bytes of a JWKS document
	unknownPause = 5 * time.Second  // between two refreshes for kids that are not known, however many come
	outagePause  = time.Second      // between two tries while the source is down
	refreshEvery = 10 * time.Minute // a removed key is dropped after at most 15 minutes
	staleLimit   = 24 * time.Hour   // known keys are good that long while the source is down
	refreshLimit = 5 * time.Second  // of one try
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
	told   told // of outages

	reading atomic.Bool // a refresh is on its way

	mu        sync.RWMutex
	keys      map[string]*rsa.PublicKey
	fetchedAt time.Time // of keys
	triedAt   time.Time // of the last refresh, good or not
	failed    error     // of the last refresh
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

// key finds a key by id, refreshing when it is unknown or the set has aged. A key that
// is not known while the source is down is no wrong key: nobody can say that.
func (k *keySet) key(ctx context.Context, kid string) (*rsa.PublicKey, error) {
	key, state := k.look(kid)
	switch state {
	case setServes:
		if !k.reading.Load() {
			k.refresh(ctx) // for the next ones; this one need not wait
		}
		return key, nil
	case setMustBeRead:
		select {
		case <-k.refresh(ctx):
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w", errKeysUnavailable, ctx.Err())
		}
	case setGood:
		return key, nil
	case setRests:
	}
	return k.known(kid)
}

// state is what a key set is good for just now, for one key.
type state int

const (
	setGood       state = iota // the key is known and may be used
	setServes                  // it may be used, and the set is to be read again
	setMustBeRead              // nothing can be said before the set is read again
	setRests                   // the set was tried a moment ago
)

// look finds what is known of a key, and what is to be done. A source that was down is
// asked again after a second; a kid that may not exist asks every five seconds.
func (k *keySet) look(kid string) (*rsa.PublicKey, state) {
	now := k.clock.Now()
	k.mu.RLock()
	defer k.mu.RUnlock()
	key, age, sinceTry := k.keys[kid], now.Sub(k.fetchedAt), now.Sub(k.triedAt)
	usable, aged, down := age < staleLimit, age >= refreshEvery, k.failed != nil
	pause := outagePause
	if key == nil && usable && (down || !aged) {
		pause = unknownPause
	}
	switch {
	case key != nil && (!aged || down && usable && sinceTry < pause):
		return key, setGood
	case sinceTry < pause:
		return nil, setRests
	case key != nil && down && usable:
		return key, setServes
	}
	return nil, setMustBeRead
}

// known is a key of the set as it is.
func (k *keySet) known(kid string) (*rsa.PublicKey, error) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	key, stale := k.keys[kid], k.clock.Now().Sub(k.fetchedAt) >= staleLimit
	switch {
	case k.failed != nil && (stale || key == nil):
		return nil, fmt.Errorf("%w: %w", errKeysUnavailable, k.failed)
	case stale:
		return nil, errKeysUnavailable
	case key == nil:
		return nil, errUnknownKey
	}
	return key, nil
}

// refresh reads the keys once, for everybody who waits for the channel.
func (k *keySet) refresh(ctx context.Context) <-chan singleflight.Result {
	return k.flight.DoChan("", func() (any, error) {
		k.reading.Store(true)
		defer k.reading.Store(false)
		// Who waits first must not end it for the others.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), refreshLimit)
		defer cancel()
		doc, err := k.source(ctx)
		var keys map[string]*rsa.PublicKey
		if err == nil {
			keys, err = parseJWKS(doc)
		}
		k.store(ctx, keys, err)
		return nil, nil
	})
}

// store keeps what a refresh brought. A failed one leaves the known keys.
func (k *keySet) store(ctx context.Context, keys map[string]*rsa.PublicKey, err error) {
	now := k.clock.Now()
	k.mu.Lock()
	defer k.mu.Unlock()
	k.triedAt, k.failed = now, err
	if err != nil {
		k.told.outage(ctx, now, err)
		return
	}
	k.told.over(ctx)
	if !sameKeys(k.keys, keys) && k.changed != nil {
		k.changed()
	}
	k.keys, k.fetchedAt = keys, now
}

// errKeysUnavailable is a JWKS that cannot be read.
var errKeysUnavailable = errors.New("the token keys cannot be read")

// parseJWKS reads the RSA signing keys of a JWKS (RFC 7517); others are left out. A set
// without any is an error: no issuer signs with nothing, so that such a set says that
// the issuer has a bad day, not that its keys are gone.
func parseJWKS(doc []byte) (map[string]*rsa.PublicKey, error) {
	if len(doc) > maxJWKS {
		return nil, errors.New("the JWKS is larger than 256 KiB")
	}
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(doc, &set); err != nil {
		return nil, fmt.Errorf("the JWKS is malformed: %w", err)
	}
	keys := map[string]*rsa.PublicKey{}
	for _, raw := range set.Keys {
		var jwk jose.JSONWebKey
		if json.Unmarshal(raw, &jwk) != nil {
			continue // of a kind that we do not know, or broken: the others are good all the same
		}
		key, ok := jwk.Key.(*rsa.PublicKey)
		if !ok || jwk.KeyID == "" || key.N.BitLen() < minRSABits || (jwk.Use != "" && jwk.Use != "sig") || (jwk.Algorithm != "" && jwk.Algorithm != string(jose.RS256)) {
			continue
		}
		keys[jwk.KeyID] = key
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("the JWKS has no usable key among %d", len(set.Keys))
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
