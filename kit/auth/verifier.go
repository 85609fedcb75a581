package auth

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/clock"
)

// The two profiles of access tokens; ID tokens fit neither.
const (
	// ProfileCognito: token_use=access and a client_id of the list; no aud.
	ProfileCognito = "cognito"
	// ProfileRFC9068: typ at+jwt and an aud of the list.
	ProfileRFC9068 = "rfc9068"
)

const (
	maxToken  = 8 << 10 // bytes of a token
	maxHeader = 1 << 10 // bytes of its header
	skew      = 60 * time.Second
	cacheSize = 10_000 // verified tokens that are kept
)

// Claims are what a verified token says.
type Claims struct {
	Subject, Issuer, TokenID, ClientID string
	// SessionID is the login that the token came from (Cognito's origin_jti); empty
	// for tokens that belong to none.
	SessionID string
	Groups    []string
	Expiry    time.Time
	// AuthTime is when the session began: auth_time, or iat where that is missing.
	AuthTime time.Time
	// Epoch is the credential epoch that the token was given on. Only our own tokens tell
	// one; HasEpoch says whether this one does.
	Epoch    int64
	HasEpoch bool
}

// Verifier verifies access tokens (decision B1), each by the rules and the keys of
// the issuer that it names, and by no others. It is safe for concurrent use.
type Verifier struct {
	issuers map[string]*issuer
	clock   clock.Clock

	mu    sync.RWMutex
	cache map[[sha256.Size]byte]Claims
}

// NewVerifier makes a verifier of the tokens of one or more issuers; it calls nobody
// until the first token.
func NewVerifier(cfgs ...VerifierConfig) (*Verifier, error) {
	if len(cfgs) == 0 {
		return nil, errors.New("token verification needs an issuer")
	}
	v := &Verifier{issuers: map[string]*issuer{}, clock: cfgs[0].Clock, cache: map[[sha256.Size]byte]Claims{}}
	for _, cfg := range cfgs {
		is, err := newIssuer(cfg)
		if err != nil {
			return nil, err
		}
		if v.issuers[cfg.Issuer] != nil {
			return nil, fmt.Errorf("the issuer %s is given twice", cfg.Issuer)
		}
		is.keys.changed = v.forget
		v.issuers[cfg.Issuer] = is
	}
	return v, nil
}

// LogTo names the logger that is told, in WARN, of keys that cannot be read, at once and
// then once a minute, and, once per issuer, of groups that are none. Nobody is told
// otherwise. It must be called before the first token.
func (v *Verifier) LogTo(log *slog.Logger) {
	for _, is := range v.issuers {
		is.keys.told.log = log
	}
}

// forget drops the verified tokens: a key is gone or new.
func (v *Verifier) forget() {
	v.mu.Lock()
	defer v.mu.Unlock()
	clear(v.cache)
}

// Verify returns the claims of a good token. Its errors are UNAUTHENTICATED, or
// UNAVAILABLE when the keys cannot be read.
func (v *Verifier) Verify(ctx context.Context, raw string) (Claims, error) {
	if len(raw) > maxToken {
		return Claims{}, apierr.Unauthenticated(errors.New("the token is larger than 8 KiB"))
	}
	sum := sha256.Sum256([]byte(raw))
	now := v.clock.Now()
	v.mu.RLock()
	c, ok := v.cache[sum]
	v.mu.RUnlock()
	if ok && now.Before(c.Expiry) {
		return c, nil
	}
	is, err := v.issuerOf(raw)
	if err == nil {
		c, err = is.verify(ctx, raw, now)
	}
	if err != nil {
		if errors.Is(err, errKeysUnavailable) {
			return Claims{}, apierr.New(errorv1.Reason_REASON_UNAVAILABLE, "tokens cannot be verified now").Wrap(err)
		}
		return Claims{}, apierr.Unauthenticated(err)
	}
	v.remember(sum, c, now)
	return c, nil
}

// issuerOf finds the issuer that a token claims to be of. The claim proves nothing yet:
// the issuer's own keys must have signed it.
func (v *Verifier) issuerOf(raw string) (*issuer, error) {
	claims, err := checkShape(raw)
	if err != nil {
		return nil, err
	}
	var p struct {
		Issuer string `json:"iss"`
	}
	if err := json.Unmarshal(claims, &p); err != nil {
		return nil, fmt.Errorf("read the issuer: %w", err)
	}
	is := v.issuers[p.Issuer]
	if is == nil {
		return nil, fmt.Errorf("the issuer %q is not accepted", p.Issuer)
	}
	return is, nil
}

// remember keeps the claims until exp; a full cache drops what has expired, and
// everything if nothing has.
func (v *Verifier) remember(sum [sha256.Size]byte, c Claims, now time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.cache) >= cacheSize {
		for k, old := range v.cache {
			if !now.Before(old.Expiry) {
				delete(v.cache, k)
			}
		}
		if len(v.cache) >= cacheSize {
			clear(v.cache)
		}
	}
	v.cache[sum] = c
}

func checkTimes(p payload, now time.Time) (time.Time, error) {
	expiry, err := unix(p.Expiry)
	if err != nil || expiry.IsZero() {
		return time.Time{}, errors.New("the token has no valid exp")
	}
	if !now.Before(expiry.Add(skew)) {
		return time.Time{}, errors.New("the token has expired")
	}
	for name, raw := range map[string]*json.Number{"nbf": p.NotBefore, "iat": p.IssuedAt} {
		at, err := unix(raw)
		if err != nil {
			return time.Time{}, fmt.Errorf("the token has no valid %s", name)
		}
		if at.After(now.Add(skew)) {
			return time.Time{}, fmt.Errorf("the token's %s is in the future", name)
		}
	}
	return expiry, nil
}

func unix(n *json.Number) (time.Time, error) {
	if n == nil {
		return time.Time{}, nil
	}
	f, err := n.Float64()
	if err != nil || f < 0 || f > 1<<40 {
		return time.Time{}, errors.New("not a time")
	}
	return time.Unix(int64(f), 0), nil
}

// checkShape refuses what no token may be, before any key is looked up: another
// algorithm, a critical extension, a second spelling. It returns the claims, unproven.
func checkShape(raw string) (claims []byte, err error) {
	segments := strings.Split(raw, ".")
	if len(segments) != 3 {
		return nil, errors.New("the token is not a JWS in compact form")
	}
	for _, s := range segments {
		// Strict: no white space, no padding, no second spelling of the same bytes.
		if _, err := base64.RawURLEncoding.Strict().DecodeString(s); err != nil || strings.ContainsAny(s, "\r\n") {
			return nil, errors.New("the token is not base64url")
		}
	}
	h, err := decodeHeader(segments[0])
	if err != nil {
		return nil, err
	}
	claims, _ = base64.RawURLEncoding.DecodeString(segments[1]) // checked above
	if err := noDuplicateKeys(claims); err != nil {
		return nil, fmt.Errorf("the token's claims: %w", err)
	}
	switch {
	case h.Algorithm != "RS256":
		return nil, fmt.Errorf("algorithm %q is not RS256", h.Algorithm)
	case h.KeyID == "":
		return nil, errors.New("the token has no kid")
	case h.Critical != nil:
		return nil, errors.New("the token has critical extensions")
	}
	return claims, nil
}
