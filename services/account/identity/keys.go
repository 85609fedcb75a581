package identity

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

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/vault"
	account "github.com/turumba/turumba/services/account"
	"github.com/turumba/turumba/services/account/postgres"
)

const keyBits = 2048

// accessLife is how long an access token of ours is good.
const accessLife = 15 * time.Minute

// operators is the group of those who operate the platform.
const operators = "operators"

// KeysConfig is what the keys are for.
type KeysConfig struct {
	Store *postgres.Store
	Vault *vault.Vault
	Clock clock.Clock
	// Issuer is the iss of the tokens, and ClientID their client_id.
	Issuer, ClientID string
	// Operators are the addresses of the users who operate the platform: the tokens of a
	// login of theirs that took the second factor carry the group "operators".
	Operators []string
}

// Subject is whom tokens are for.
type Subject struct {
	ID, Email, Session string
	// LoggedIn is when the session began.
	LoggedIn time.Time
	// Epoch is the credential epoch that the session stands on.
	Epoch int64
	// Factor says that the login took the second factor, which is still on.
	Factor bool
}

// Keys sign our own tokens with the newest key and publish all of them. API keys
// become such tokens whoever the identity provider is.
type Keys struct {
	KeysConfig
	signer jose.Signer
	jwks   []jose.JSONWebKey
}

// LoadKeys reads the keys, making the first. A wrong master key is told as such.
func LoadKeys(ctx context.Context, cfg KeysConfig) (*Keys, error) {
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
	ring := &Keys{KeysConfig: cfg}
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

// KeyAAD is the place of a signing key.
func KeyAAD(kid string) vault.AAD {
	return vault.AAD{Account: "platform", Resource: kid, Field: "private_key", Version: 1}
}

func open(v *vault.Vault, s *postgres.SigningKey) (*rsa.PrivateKey, error) {
	der, err := v.Open(KeyAAD(s.KID), s.PrivateKey)
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

func makeKey(ctx context.Context, cfg KeysConfig) error {
	key, err := rsa.GenerateKey(rand.Reader, keyBits)
	if err != nil {
		return fmt.Errorf("make a signing key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("make a signing key: %w", err)
	}
	kid := uuid.Must(uuid.NewV7()).String()
	sealed, err := cfg.Vault.Seal(KeyAAD(kid), der)
	if err != nil {
		return fmt.Errorf("seal the signing key: %w", err)
	}
	public, err := json.Marshal(jose.JSONWebKey{Key: &key.PublicKey, KeyID: kid, Use: "sig", Algorithm: string(jose.RS256)})
	if err != nil {
		return fmt.Errorf("make a signing key: %w", err)
	}
	return cfg.Store.AddFirstSigningKey(ctx, postgres.SigningKey{KID: kid, PrivateKey: sealed, PublicJWK: public})
}

// common are the claims that every token of a subject has, in Cognito's shape.
func (k *Keys) common(sub string, groups ...string) map[string]any {
	now := k.Clock.Now()
	return map[string]any{
		"iss": k.Issuer, "sub": sub, "iat": now.Unix(), "exp": now.Add(accessLife).Unix(), "cognito:groups": append([]string{}, groups...),
	}
}

// groups are those of somebody who logged in. An address alone makes no operator: it can
// be lost, or never have been theirs (ADR 0043).
func (k *Keys) groups(s Subject) []string {
	if s.Factor && slices.Contains(k.Operators, s.Email) {
		return []string{operators}
	}
	return nil
}

// Tokens signs an access and an ID token, and puts the refresh token beside them.
func (k *Keys) Tokens(s Subject, refresh string) (Tokens, error) {
	common := k.common(s.ID, k.groups(s)...)
	common["auth_time"], common["origin_jti"], common["turumba:epoch"] = s.LoggedIn.Unix(), s.Session, s.Epoch
	access, err := k.sign(common, map[string]any{"token_use": "access", "client_id": k.ClientID, "scope": "openid", "username": s.ID})
	if err != nil {
		return Tokens{}, err
	}
	id, err := k.sign(common, map[string]any{"token_use": "id", "aud": k.ClientID, "cognito:username": s.ID, "email": s.Email, "email_verified": true})
	if err != nil {
		return Tokens{}, err
	}
	return Tokens{Access: access, ID: id, Refresh: refresh, ExpiresIn: int32(accessLife / time.Second)}, nil
}

// keyToken signs the access token of an API key.
func (k *Keys) keyToken(keyID string) (Tokens, error) {
	access, err := k.sign(k.common(keyID), map[string]any{"token_use": "access", "client_id": k.ClientID, "scope": "api_key"})
	return Tokens{Access: access, ExpiresIn: int32(accessLife / time.Second)}, err
}

func (k *Keys) sign(common, own map[string]any) (string, error) {
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

// IssueKeyToken exchanges an API key for an access token. Every failure is the
// same, whether the key is unknown, revoked, over, or the secret wrong.
func (k *Keys) IssueKeyToken(ctx context.Context, keyID, secret string) (Tokens, error) {
	opened, err := k.Store.UseAPIKey(ctx, keyID, func(key *account.APIKey, now time.Time) bool { return key.Opens(secret, now) })
	if err != nil {
		return Tokens{}, err
	}
	if !opened {
		return Tokens{}, apierr.New(errorv1.Reason_REASON_INVALID_CREDENTIALS, "client_id and client_secret do not match a key that works")
	}
	return k.keyToken(keyID)
}

// JWKS is the key set that verifies the tokens.
func (k *Keys) JWKS() ([]byte, error) {
	return json.Marshal(jose.JSONWebKeySet{Keys: k.jwks})
}

// Public are the public keys, newest first.
func (k *Keys) Public() []jose.JSONWebKey { return k.jwks }
