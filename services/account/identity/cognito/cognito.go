// Package cognito is the identity provider for people whose logins are in a user pool
// of Amazon Cognito: Cognito keeps passwords and second factors, mails the codes and
// signs the tokens; accounts, roles and memberships stay ours. A person is found by
// the pool and their sub. ADR 0017 says what a pool must look like and what differs
// from the local provider.
package cognito

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"log/slog"
	"net/http"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	idp "github.com/aws/aws-sdk-go-v2/service/cognitoidentityprovider"

	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/vault"
	account "github.com/turumba/turumba/services/account"
	"github.com/turumba/turumba/services/account/identity"
	"github.com/turumba/turumba/services/account/postgres"
)

// Config is what the provider needs.
type Config struct {
	Settings
	// Issuer is the iss of the pool's tokens.
	Issuer string
	Store  *postgres.Store
	// Vault seals the sessions of challenges.
	Vault *vault.Vault
	// Mail takes notices; the codes are mailed by Cognito.
	Mail   *identity.Postbox
	Clock  clock.Clock
	Logger *slog.Logger
	// HTTP is the way out.
	HTTP *http.Client
	// Changed is called when sessions ended, to drop cached contexts.
	Changed func()
}

// Provider is the identity provider of a user pool.
type Provider struct {
	Config
	cognito *idp.Client
	limits  identity.Limits
}

// New prepares the provider; it calls nobody.
func New(cfg Config) *Provider {
	options := idp.Options{
		Region: cfg.Region, HTTPClient: cfg.HTTP,
		Retryer:     aws.NopRetryer{}, // signing up twice is not signing up once; who called decides
		Credentials: credentials.NewStaticCredentialsProvider(cfg.AccessKeyID, cfg.SecretAccessKey.Reveal(), cfg.SessionToken.Reveal()),
	}
	if cfg.Endpoint != "" {
		options.BaseEndpoint = aws.String(cfg.Endpoint)
	}
	return &Provider{Config: cfg, cognito: idp.New(options), limits: identity.Limits{Store: cfg.Store}}
}

// secretHash proves the client for a user; nil for a client without a secret.
func (p *Provider) secretHash(username string) *string {
	if p.ClientSecret == "" {
		return nil
	}
	mac := hmac.New(sha256.New, []byte(p.ClientSecret.Reveal()))
	mac.Write([]byte(username + p.ClientID))
	return aws.String(base64.StdEncoding.EncodeToString(mac.Sum(nil)))
}

// parameters are those of a login, with the proof of the client.
func (p *Provider) parameters(username string, values map[string]string) map[string]string {
	if hash := p.secretHash(username); hash != nil {
		values["SECRET_HASH"] = *hash
	}
	return values
}

// user is a user of ours whose login is in the pool.
func (p *Provider) user(ctx context.Context, userID string) (*account.User, error) {
	u, err := p.Store.User(ctx, userID)
	if err != nil {
		return nil, err
	}
	if u.IdpIssuer != p.Issuer {
		return nil, identity.ErrUnsupported // the login is elsewhere
	}
	return u, nil
}
