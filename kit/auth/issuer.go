package auth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"

	"github.com/turumba/turumba/kit/clock"
)

// VerifierConfig says which tokens of one issuer are accepted.
type VerifierConfig struct {
	// Issuer is the iss that tokens must carry.
	Issuer string
	// Profile is cognito or rfc9068.
	Profile string
	// Audience is the accepted client_id (cognito) or aud (rfc9068) values.
	Audience []string
	// GroupsClaim names the claim with the groups; "cognito:groups" when empty.
	GroupsClaim string
	// Own says that the tokens are ours: their credential epoch is believed.
	Own bool
	// NoGroups leaves the groups of the tokens out: groups make operators, and nothing
	// says that the issuer asks those for a second factor.
	NoGroups bool
	// Keys is where the JWKS comes from; it is read at the first token.
	Keys JWKSSource
	// Clock checks exp, nbf and iat.
	Clock clock.Clock
}

// DefaultGroupsClaim is the claim with the groups, as Cognito names it.
const DefaultGroupsClaim = "cognito:groups"

// issuer verifies the tokens of one issuer by its own keys.
type issuer struct {
	cfg  VerifierConfig
	keys *keySet
	oidc *oidc.IDTokenVerifier
}

func newIssuer(cfg VerifierConfig) (*issuer, error) {
	if cfg.Profile != ProfileCognito && cfg.Profile != ProfileRFC9068 {
		return nil, fmt.Errorf("token profile %q: expected cognito or rfc9068", cfg.Profile)
	}
	if cfg.Issuer == "" || len(cfg.Audience) == 0 {
		return nil, errors.New("token verification needs an issuer and at least one client id or audience")
	}
	if cfg.GroupsClaim == "" {
		cfg.GroupsClaim = DefaultGroupsClaim
	}
	is := &issuer{cfg: cfg, keys: &keySet{source: cfg.Keys, clock: cfg.Clock, told: told{issuer: cfg.Issuer}}}
	is.oidc = oidc.NewVerifier(cfg.Issuer, is.keys, &oidc.Config{
		SkipClientIDCheck: true, // the profile checks client_id or aud
		SkipExpiryCheck:   true, // checked here, with a clock and a skew
		Now:               cfg.Clock.Now,
	})
	return is, nil
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
	AuthTime  *json.Number `json:"auth_time"`
	Epoch     *int64       `json:"turumba:epoch"`
}

// verify checks a token that checkShape let through.
func (i *issuer) verify(ctx context.Context, raw string, now time.Time) (Claims, error) {
	if err := i.checkHeader(ctx, raw); err != nil {
		return Claims{}, err
	}
	tok, err := i.oidc.Verify(ctx, raw)
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
	if err := i.checkProfile(p, tok.Audience); err != nil {
		return Claims{}, err
	}
	var all map[string]json.RawMessage
	if err := tok.Claims(&all); err != nil {
		return Claims{}, fmt.Errorf("read the claims: %w", err)
	}
	c := Claims{Subject: tok.Subject, Issuer: tok.Issuer, TokenID: p.TokenID, ClientID: p.ClientID, SessionID: p.SessionID, Expiry: expiry}
	if c.AuthTime, err = sessionStart(p); err != nil {
		return Claims{}, err
	}
	if !i.cfg.NoGroups {
		groups, fair := groupsOf(all[i.cfg.GroupsClaim])
		if !fair {
			i.keys.told.oddGroups(ctx, i.cfg.GroupsClaim)
		}
		c.Groups = groups
	}
	if i.cfg.Own && p.Epoch != nil {
		c.Epoch, c.HasEpoch = *p.Epoch, true
	}
	return c, nil
}

// groupsOf reads a claim with groups: a list of texts, or one text, which is one group.
// Anything else is no group, and is not fair; it does not make the token a bad one.
func groupsOf(raw json.RawMessage) (groups []string, fair bool) {
	var claim any
	if len(raw) == 0 || json.Unmarshal(raw, &claim) != nil || claim == nil {
		return nil, true // there are none
	}
	list, ok := claim.([]any)
	if !ok {
		list = []any{claim}
	}
	fair = true
	for _, v := range list {
		if group, ok := v.(string); ok && group != "" {
			groups = append(groups, group)
		} else {
			fair = false
		}
	}
	return groups, fair
}

// checkProfile refuses what is not an access token for us.
func (i *issuer) checkProfile(p payload, audience []string) error {
	if i.cfg.Profile == ProfileCognito {
		if p.TokenUse != "access" {
			return fmt.Errorf("token_use is %q, expected access", p.TokenUse)
		}
		if !slices.Contains(i.cfg.Audience, p.ClientID) {
			return errors.New("the token is for another client")
		}
		return nil
	}
	for _, a := range audience {
		if slices.Contains(i.cfg.Audience, a) {
			return nil
		}
	}
	return errors.New("the token is for another audience")
}

// checkHeader refuses a token of another type, and one whose key is not known. The
// library would not tell keys that cannot be read from a signature that is wrong.
func (i *issuer) checkHeader(ctx context.Context, raw string) error {
	segment, _, _ := strings.Cut(raw, ".")
	h, err := decodeHeader(segment)
	if err != nil {
		return err
	}
	if i.cfg.Profile == ProfileRFC9068 && strings.TrimPrefix(strings.ToLower(h.Type), "application/") != "at+jwt" {
		return fmt.Errorf("typ %q is not at+jwt", h.Type)
	}
	_, err = i.keys.key(ctx, h.KeyID)
	return err
}

// sessionStart is when the session of a token began; zero when it does not tell.
func sessionStart(p payload) (time.Time, error) {
	began := p.AuthTime
	if began == nil {
		began = p.IssuedAt
	}
	at, err := unix(began)
	if err != nil {
		return time.Time{}, errors.New("the token has no valid auth_time")
	}
	return at, nil
}
