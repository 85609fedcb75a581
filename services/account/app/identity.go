package app

import (
	"context"

	"github.com/turumba/turumba/kit/auth"
	"github.com/turumba/turumba/kit/vault"
	account "github.com/turumba/turumba/services/account"
	"github.com/turumba/turumba/services/account/identity"
	"github.com/turumba/turumba/services/account/identity/local"
	"github.com/turumba/turumba/services/account/server"
)

// identify wires who people are: our own keys, the mails, the identity provider and
// the verifier of all tokens.
func (a *App) identify(ctx context.Context, cfg Config, deps Deps, v *vault.Vault, changed func()) (*identity.Keys, server.Identity, error) {
	keys, err := identity.LoadKeys(ctx, identity.KeysConfig{
		Store: a.store, Vault: v, Clock: deps.Clock, Issuer: cfg.Issuer, ClientID: cfg.ClientID, Operators: normal(cfg.Operators),
	})
	if err != nil {
		return nil, nil, err
	}
	a.mail = identity.NewPostbox(a.store, v, deps.Mailer, deps.Clock, deps.Logger)
	a.JWKS = func(context.Context) ([]byte, error) { return keys.JWKS() }
	a.Verifier, err = auth.NewVerifier(auth.VerifierConfig{
		Issuer: cfg.Issuer, Profile: auth.ProfileCognito, Audience: []string{cfg.ClientID}, Keys: a.JWKS, Clock: deps.Clock,
	})
	if err != nil {
		return nil, nil, err
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
