package app

import (
	"context"
	"fmt"
	"net/http"
	"runtime"

	"github.com/turumba/turumba/kit/auth"
	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/vault"
	account "github.com/turumba/turumba/services/account"
	"github.com/turumba/turumba/services/account/identity"
	"github.com/turumba/turumba/services/account/identity/cognito"
	"github.com/turumba/turumba/services/account/identity/local"
	"github.com/turumba/turumba/services/account/server"
)

// The identity providers.
const (
	ProviderLocal   = "local"
	ProviderCognito = "cognito"
)

// IdentitySettings say where people's logins are, and whose tokens count.
type IdentitySettings struct {
	// Provider keeps passwords and gives tokens.
	Provider string `env:"IDENTITY_PROVIDER" envDefault:"local" help:"where people's logins are: local (this database) or cognito (an Amazon Cognito user pool)"`
	// Cognito is the user pool.
	Cognito cognito.Settings
	// Trusted is a further issuer whose tokens count.
	Trusted auth.Trusted
}

// Validate reports what Load cannot see by the types.
func (s IdentitySettings) Validate() error {
	switch s.Provider {
	case ProviderLocal:
		return nil
	case ProviderCognito:
		return s.Cognito.Check()
	}
	return fmt.Errorf("IDENTITY_PROVIDER: %q is neither local nor cognito", s.Provider)
}

// issuers are those besides our own whose tokens count. The pool's tokens do without
// being named; naming it with OIDC_TRUSTED_ISSUER sets more than the defaults.
func (s IdentitySettings) issuers(client *http.Client, c clock.Clock) []auth.VerifierConfig {
	list := s.Trusted.Configs(client, c)
	if s.Provider != ProviderCognito || s.Trusted.Issuer == s.Cognito.Issuer() {
		return list
	}
	pool := auth.Trusted{
		Issuer: s.Cognito.Issuer(), Profile: auth.ProfileCognito, Audience: []string{s.Cognito.ClientID}, OperatorsMFA: s.Trusted.OperatorsMFA,
	}
	if s.Trusted.Issuer == "" {
		pool.JWKSURL = s.Trusted.JWKSURL
	}
	return append(list, pool.Configs(client, c)...)
}

// places are how many logins and registrations are handled at once: as many as the machine
// hashes passwords for, each in 32 MiB, or as may wait for the user pool.
func (s IdentitySettings) places() identity.Places {
	if s.Provider == ProviderCognito {
		return identity.Places{Logins: 64, Registrations: 16}
	}
	cores := runtime.GOMAXPROCS(0)
	return identity.Places{Logins: 2 * cores, Registrations: max(1, cores/2)}
}

// identify wires who people are: our own keys, the mails, the identity provider and
// the verifier of all tokens.
func (a *App) identify(ctx context.Context, cfg Config, deps Deps, v *vault.Vault, changed func()) (*identity.Keys, server.Identity, error) {
	keys, err := identity.LoadKeys(ctx, identity.KeysConfig{
		Store: a.store, Vault: v, Clock: deps.Clock, Issuer: cfg.Issuer, ClientID: cfg.ClientID, Operators: normal(cfg.Operators),
	})
	if err != nil {
		return nil, nil, err
	}
	a.mail = identity.NewPostbox(a.store, v, deps.Mailer, deps.Clock, deps.Logger, deps.Loops)
	a.JWKS = func(context.Context) ([]byte, error) { return keys.JWKS() }
	own := auth.VerifierConfig{Issuer: cfg.Issuer, Profile: auth.ProfileCognito, Audience: []string{cfg.ClientID}, Own: true, Keys: a.JWKS, Clock: deps.Clock}
	if a.Verifier, err = auth.NewVerifier(append(cfg.Identity.issuers(deps.HTTP, deps.Clock), own)...); err != nil {
		return nil, nil, err
	}
	a.Verifier.LogTo(deps.Logger)
	if cfg.Identity.Provider == ProviderCognito {
		return keys, cognito.New(cognito.Config{
			Settings: cfg.Identity.Cognito, Issuer: cfg.Identity.Cognito.Issuer(), Store: a.store, Vault: v, Mail: a.mail,
			Clock: deps.Clock, Logger: deps.Logger, HTTP: deps.HTTP, Changed: changed,
		}), nil
	}
	provider, err := local.New(local.Config{
		Store: a.store, Vault: v, Keys: keys, Mail: a.mail, Clock: deps.Clock, Logger: deps.Logger, Changed: changed,
	})
	return keys, provider, err
}

func normal(addresses []string) []string {
	out := make([]string, len(addresses))
	for i, a := range addresses {
		out[i] = account.NormalEmail(a)
	}
	return out
}
