package local

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/uuid"

	"github.com/turumba/turumba/kit/vault"
	"github.com/turumba/turumba/services/account/postgres"
)

const keyBits = 2048

// Tokens are what a login gives: tokens, or the session of a challenge.
type Tokens struct {
	Access, ID, Refresh string
	ExpiresIn           int32 // seconds
	// Session is what the answer to the challenge needs; the tokens are empty then.
	Session string
}

// subject is whom tokens are for.
type subject struct {
	ID, Email, Session string
	// LoggedIn is when the session began.
	LoggedIn time.Time
}

// keyring signs with the newest key and publishes all of them.
type keyring struct {
	signer jose.Signer
	jwks   []jose.JSONWebKey
}

// loadKeys reads the keys, making the first. A wrong master key is told as such.
func loadKeys(ctx context.Context, cfg Config) (*keyring, error) {
	stored, err := cfg.Store.SigningKeys(ctx)
	if err != nil {
		return nil, err
	}
	if len(stored) == 0 {
		if err := makeKey(ctx, cfg); err != nil {
			return nil, err
		}
		if stored, err = cfg.Store.SigningKeys(ctx); err != nil {
			return nil, err
		}
	}
	ring := &keyring{}
	for _, s := range stored {
		var jwk jose.JSONWebKey
		if err := json.Unmarshal(s.PublicJWK, &jwk); err != nil {
			return nil, fmt.Errorf("read signing key %s: %w", s.KID, err)
		}
		ring.jwks = append(ring.jwks, jwk)
	}
	key, err := open(cfg.Vault, stored[0])
	if err != nil {
		return nil, err
	}
	ring.signer, err = jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: jose.JSONWebKey{Key: key, KeyID: stored[0].KID}}, (&jose.SignerOptions{}).WithType("JWT"))
	if err != nil {
		return nil, fmt.Errorf("prepare signing: %w", err)
	}
	return ring, nil
}

func keyAAD(kid string) vault.AAD {
	return vault.AAD{Account: "platform", Resource: kid, Field: "private_key", Version: 1}
}

func open(v *vault.Vault, s *postgres.SigningKey) (*rsa.PrivateKey, error) {
	der, err := v.Open(keyAAD(s.KID), s.PrivateKey)
	if err != nil {
		return nil, fmt.Errorf("TURUMBA_MASTER_KEY does not open what was stored in this database: %w", err)
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("read signing key %s: %w", s.KID, err)
	}
	rsaKey, ok := key.(*rsa.PrivateKey)
	if !ok {
		return nil, errors.New("the signing key is not an RSA key")
	}
	return rsaKey, nil
}

func makeKey(ctx context.Context, cfg Config) error {
	key, err := rsa.GenerateKey(rand.Reader, keyBits)
	if err != nil {
		return fmt.Errorf("make a signing key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("make a signing key: %w", err)
	}
	kid := uuid.Must(uuid.NewV7()).String()
	sealed, err := cfg.Vault.Seal(keyAAD(kid), der)
	if err != nil {
		return fmt.Errorf("seal the signing key: %w", err)
	}
	public, err := json.Marshal(jose.JSONWebKey{Key: &key.PublicKey, KeyID: kid, Use: "sig", Algorithm: string(jose.RS256)})
	if err != nil {
		return fmt.Errorf("make a signing key: %w", err)
	}
	return cfg.Store.AddFirstSigningKey(ctx, postgres.SigningKey{KID: kid, PrivateKey: sealed, PublicJWK: public})
}

// operators is the group of those who operate the platform.
const operators = "operators"

// common are the claims that every token of a subject has, in Cognito's shape.
func (k *keyring) common(cfg Config, sub, email string) map[string]any {
	now := cfg.Clock.Now()
	groups := []string{}
	if slices.Contains(cfg.Operators, email) {
		groups = append(groups, operators)
	}
	return map[string]any{
		"iss": cfg.Issuer, "sub": sub, "iat": now.Unix(), "exp": now.Add(accessLife).Unix(), "cognito:groups": groups,
	}
}

// tokens signs an access and an ID token.
func (k *keyring) tokens(cfg Config, s subject, refresh string) (Tokens, error) {
	common := k.common(cfg, s.ID, s.Email)
	common["auth_time"], common["origin_jti"] = s.LoggedIn.Unix(), s.Session
	access, err := k.sign(common, map[string]any{"token_use": "access", "client_id": cfg.ClientID, "scope": "openid", "username": s.ID})
	if err != nil {
		return Tokens{}, err
	}
	id, err := k.sign(common, map[string]any{"token_use": "id", "aud": cfg.ClientID, "cognito:username": s.ID, "email": s.Email, "email_verified": true})
	if err != nil {
		return Tokens{}, err
	}
	return Tokens{Access: access, ID: id, Refresh: refresh, ExpiresIn: int32(accessLife / time.Second)}, nil
}

// keyToken signs the access token of an API key.
func (k *keyring) keyToken(cfg Config, keyID string) (Tokens, error) {
	access, err := k.sign(k.common(cfg, keyID, ""), map[string]any{"token_use": "access", "client_id": cfg.ClientID, "scope": "api_key"})
	return Tokens{Access: access, ExpiresIn: int32(accessLife / time.Second)}, err
}

func (k *keyring) sign(common, own map[string]any) (string, error) {
	claims := map[string]any{"jti": uuid.NewString()}
	for _, m := range []map[string]any{common, own} {
		for name, v := range m {
			claims[name] = v
		}
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", fmt.Errorf("sign a token: %w", err)
	}
	jws, err := k.signer.Sign(payload)
	if err != nil {
		return "", fmt.Errorf("sign a token: %w", err)
	}
	return jws.CompactSerialize()
}

// JWKS is the key set that verifies the tokens.
func (p *Provider) JWKS() ([]byte, error) {
	return json.Marshal(jose.JSONWebKeySet{Keys: p.keys.jwks})
}

// Keys are the public keys, newest first.
func (p *Provider) Keys() []jose.JSONWebKey { return p.keys.jwks }
