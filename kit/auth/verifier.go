package auth

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"

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

// VerifierConfig says which tokens are accepted.
type VerifierConfig struct {
	// Issuer is the iss that tokens must carry.
	Issuer string
	// Profile is cognito or rfc9068.
	Profile string
	// Audience is the accepted client_id (cognito) or aud (rfc9068) values.
	Audience []string
	// GroupsClaim names the claim with the groups; "cognito:groups" when empty.
	GroupsClaim string
	// Keys is where the JWKS comes from; it is read at the first token.
	Keys JWKSSource
	// Clock checks exp, nbf and iat.
	Clock clock.Clock
}

// Claims are what a verified token says.
type Claims struct {
	Subject, Issuer, TokenID, ClientID string
	// SessionID is the login that the token came from (Cognito's origin_jti); empty
	// for tokens that belong to none.
	SessionID string
	Groups    []string
	Expiry    time.Time
}

// Verifier verifies access tokens (decision B1). It is safe for concurrent use.
type Verifier struct {
	cfg  VerifierConfig
	keys *keySet
	oidc *oidc.IDTokenVerifier

	mu    sync.RWMutex
	cache map[[sha256.Size]byte]Claims
}

// NewVerifier makes a verifier; it calls nobody until the first token.
func NewVerifier(cfg VerifierConfig) (*Verifier, error) {
	if cfg.Profile != ProfileCognito && cfg.Profile != ProfileRFC9068 {
		return nil, fmt.Errorf("token profile %q: expected cognito or rfc9068", cfg.Profile)
	}
	if cfg.Issuer == "" || len(cfg.Audience) == 0 {
		return nil, errors.New("token verification needs an issuer and at least one client id or audience")
	}
	if cfg.GroupsClaim == "" {
		cfg.GroupsClaim = "cognito:groups"
	}
	v := &Verifier{cfg: cfg, keys: &keySet{source: cfg.Keys, clock: cfg.Clock}, cache: map[[sha256.Size]byte]Claims{}}
	v.keys.changed = v.forget
	v.oidc = oidc.NewVerifier(cfg.Issuer, v.keys, &oidc.Config{
		SkipClientIDCheck: true, // the profile checks client_id or aud
		SkipExpiryCheck:   true, // checked here, with a clock and a skew
		Now:               cfg.Clock.Now,
	})
	return v, nil
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
		return Claims{}, unauthenticated(errors.New("the token is larger than 8 KiB"))
	}
	sum := sha256.Sum256([]byte(raw))
	now := v.cfg.Clock.Now()
	v.mu.RLock()
	c, ok := v.cache[sum]
	v.mu.RUnlock()
	if ok && now.Before(c.Expiry) {
		return c, nil
	}
	c, err := v.verify(ctx, raw, now)
	if err != nil {
		if errors.Is(err, errKeysUnavailable) {
			return Claims{}, apierr.New(errorv1.Reason_REASON_UNAVAILABLE, "tokens cannot be verified now").Wrap(err)
		}
		return Claims{}, unauthenticated(err)
	}
	v.remember(sum, c, now)
	return c, nil
}

func unauthenticated(cause error) error {
	return apierr.New(errorv1.Reason_REASON_UNAUTHENTICATED, "the token is missing or not valid").Wrap(cause)
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

// payload are the claims that are read; times stay raw so that a missing one is
// told from zero.
type payload struct {
	Expiry    *json.Number `json:"exp"`
	NotBefore *json.Number `json:"nbf"`
	IssuedAt  *json.Number `json:"iat"`
	TokenUse  string       `json:"token_use"`
	ClientID  string       `json:"client_id"`
	TokenID   string       `json:"jti"`
	SessionID string       `json:"origin_jti"`
}

func (v *Verifier) verify(ctx context.Context, raw string, now time.Time) (Claims, error) {
	if err := checkHeader(raw, v.cfg.Profile); err != nil {
		return Claims{}, err
	}
	tok, err := v.oidc.Verify(ctx, raw)
	if err != nil {
		return Claims{}, err
	}
	var p payload
	if err := tok.Claims(&p); err != nil {
		return Claims{}, fmt.Errorf("read the claims: %w", err)
	}
	expiry, err := checkTimes(p, now)
	if err != nil {
		return Claims{}, err
	}
	if tok.Subject == "" {
		return Claims{}, errors.New("the token has no sub")
	}
	if err := v.checkProfile(p, tok.Audience); err != nil {
		return Claims{}, err
	}
	var all map[string]json.RawMessage
	if err := tok.Claims(&all); err != nil {
		return Claims{}, fmt.Errorf("read the claims: %w", err)
	}
	c := Claims{Subject: tok.Subject, Issuer: tok.Issuer, TokenID: p.TokenID, ClientID: p.ClientID, SessionID: p.SessionID, Expiry: expiry}
	if raw, ok := all[v.cfg.GroupsClaim]; ok {
		if err := json.Unmarshal(raw, &c.Groups); err != nil {
			return Claims{}, fmt.Errorf("read the groups: %w", err)
		}
	}
	return c, nil
}

// checkProfile refuses what is not an access token for us.
func (v *Verifier) checkProfile(p payload, audience []string) error {
	if v.cfg.Profile == ProfileCognito {
		if p.TokenUse != "access" {
			return fmt.Errorf("token_use is %q, expected access", p.TokenUse)
		}
		if !slices.Contains(v.cfg.Audience, p.ClientID) {
			return errors.New("the token is for another client")
		}
		return nil
	}
	for _, a := range audience {
		if slices.Contains(v.cfg.Audience, a) {
			return nil
		}
	}
	return errors.New("the token is for another audience")
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

// checkHeader refuses what a header may not say before any key is looked up:
// another algorithm, a critical extension, or (rfc9068) another type.
func checkHeader(raw, profile string) error {
	segments := strings.Split(raw, ".")
	if len(segments) != 3 {
		return errors.New("the token is not a JWS in compact form")
	}
	for _, s := range segments {
		// Strict: no white space, no padding, no second spelling of the same bytes.
		if _, err := base64.RawURLEncoding.Strict().DecodeString(s); err != nil || strings.ContainsAny(s, "\r\n") {
			return errors.New("the token is not base64url")
		}
	}
	h, err := decodeHeader(segments[0])
	if err != nil {
		return err
	}
	claims, _ := base64.RawURLEncoding.DecodeString(segments[1]) // checked above
	if err := noDuplicateKeys(claims); err != nil {
		return fmt.Errorf("the token's claims: %w", err)
	}
	switch {
	case h.Algorithm != "RS256":
		return fmt.Errorf("algorithm %q is not RS256", h.Algorithm)
	case h.KeyID == "":
		return errors.New("the token has no kid")
	case h.Critical != nil:
		return errors.New("the token has critical extensions")
	case profile == ProfileRFC9068 && !strings.EqualFold(strings.TrimPrefix(strings.ToLower(h.Type), "application/"), "at+jwt"):
		return fmt.Errorf("typ %q is not at+jwt", h.Type)
	}
	return nil
}
