package auth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/turumba/turumba/kit/clock"
)

// Trusted are the settings of an issuer besides our own whose tokens are accepted.
type Trusted struct {
	// Issuer is the iss of the tokens; empty for none.
	Issuer string `env:"OIDC_TRUSTED_ISSUER" help:"issuer besides our own whose access tokens are accepted"`
	// Profile is the shape of its access tokens.
	Profile string `env:"OIDC_TRUSTED_PROFILE" envDefault:"rfc9068" help:"shape of its tokens: rfc9068 (typ at+jwt, aud) or cognito (token_use, client_id)"`
	// Audience is what the tokens must be for.
	Audience []string `env:"OIDC_TRUSTED_AUDIENCE" help:"comma-separated aud (rfc9068) or client_id (cognito) values that are accepted"`
	// GroupsClaim names the claim with the groups.
	GroupsClaim string `env:"OIDC_TRUSTED_GROUPS_CLAIM" envDefault:"cognito:groups" help:"claim with the groups, which only operators need"`
	// OperatorsMFA says that its operators have a second factor.
	OperatorsMFA bool `env:"OPERATORS_MFA_ENFORCED" envDefault:"false" help:"the group operators of another issuer (OIDC_TRUSTED_ISSUER, the Cognito pool) counts: the issuer demands a second factor of everybody in it"`
	// JWKSURL is where its keys are.
	JWKSURL string `env:"OIDC_JWKS_URL" help:"where its keys are; default: what its discovery document says (rfc9068), or <issuer>/.well-known/jwks.json (cognito)"`
}

// Validate reports what Load cannot see by the types.
func (t Trusted) Validate() error {
	if t.Issuer == "" {
		if len(t.Audience) > 0 || t.JWKSURL != "" {
			return errors.New("OIDC_TRUSTED_ISSUER: is needed by OIDC_TRUSTED_AUDIENCE and OIDC_JWKS_URL")
		}
		return nil
	}
	var problems []error
	if !isURL(t.Issuer) {
		problems = append(problems, errors.New("OIDC_TRUSTED_ISSUER: expected an https:// or http:// URL"))
	}
	if t.JWKSURL != "" && !isURL(t.JWKSURL) {
		problems = append(problems, errors.New("OIDC_JWKS_URL: expected an https:// or http:// URL"))
	}
	if t.Profile != ProfileCognito && t.Profile != ProfileRFC9068 {
		problems = append(problems, fmt.Errorf("OIDC_TRUSTED_PROFILE: %q is neither rfc9068 nor cognito", t.Profile))
	}
	if len(t.Audience) == 0 {
		problems = append(problems, errors.New("OIDC_TRUSTED_AUDIENCE: is required with OIDC_TRUSTED_ISSUER"))
	}
	return errors.Join(problems...)
}

func isURL(s string) bool {
	u, err := url.Parse(s)
	return err == nil && u.Host != "" && (u.Scheme == "https" || u.Scheme == "http")
}

// Configs are the verifier's settings for the issuer; none when there is none. The
// keys are read with client at the first token.
func (t Trusted) Configs(client *http.Client, c clock.Clock) []VerifierConfig {
	if t.Issuer == "" {
		return nil
	}
	var keys JWKSSource
	switch {
	case t.JWKSURL != "":
		keys = HTTPSource(client, t.JWKSURL)
	case t.Profile == ProfileCognito:
		keys = HTTPSource(client, t.Issuer+"/.well-known/jwks.json")
	default:
		keys = DiscoverySource(client, t.Issuer)
	}
	return []VerifierConfig{{
		Issuer: t.Issuer, Profile: t.Profile, Audience: t.Audience, GroupsClaim: t.GroupsClaim, NoGroups: !t.OperatorsMFA, Keys: keys, Clock: c,
	}}
}

// DiscoverySource reads the JWKS from where the issuer's discovery document (OpenID
// Connect Discovery 1.0) says it is. The document must name the issuer it was asked
// from, so that one issuer cannot bring in the keys of another.
func DiscoverySource(client *http.Client, issuer string) JWKSSource {
	return func(ctx context.Context) ([]byte, error) {
		doc, err := HTTPSource(client, strings.TrimSuffix(issuer, "/")+"/.well-known/openid-configuration")(ctx)
		if err != nil {
			return nil, fmt.Errorf("discover the issuer: %w", err)
		}
		var found struct {
			Issuer string `json:"issuer"`
			JWKS   string `json:"jwks_uri"`
		}
		if len(doc) > maxJWKS {
			return nil, errors.New("the discovery document is larger than 256 KiB")
		}
		if err := json.Unmarshal(doc, &found); err != nil {
			return nil, fmt.Errorf("the discovery document is malformed: %w", err)
		}
		if found.Issuer != issuer {
			return nil, fmt.Errorf("the discovery document is of %q, not of %q", found.Issuer, issuer)
		}
		if strings.HasPrefix(issuer, "https://") && !strings.HasPrefix(found.JWKS, "https://") {
			return nil, errors.New("the discovery document leads from https to elsewhere")
		}
		return HTTPSource(client, found.JWKS)(ctx)
	}
}
