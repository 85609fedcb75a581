package single

import (
	"context"
	"net/url"

	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/config"
	"github.com/turumba/turumba/kit/pg/embedded"
	"github.com/turumba/turumba/kit/vault"
	account "github.com/turumba/turumba/services/account/app"
	messaging "github.com/turumba/turumba/services/messaging/app"
)

// RotateKeys wraps everything that was sealed by the current master key, in the
// databases of DATABASE_URL or of the data folder, whether its server runs or not.
func RotateKeys(ctx context.Context, cfg Config, dryRun bool) (vault.Rotation, error) {
	v, err := cfg.vault()
	if err != nil {
		return vault.Rotation{}, err
	}
	at, stop, err := cfg.server(ctx)
	if err != nil {
		return vault.Rotation{}, err
	}
	defer stop()
	r, err := account.RotateKeys(ctx, at("turumba_account"), v, dryRun)
	if err != nil {
		return r, err
	}
	more, err := messaging.RotateKeys(ctx, at("turumba_messaging"), v, dryRun)
	r.Kinds = append(r.Kinds, more.Kinds...)
	return r, err
}

func (c Config) vault() (*vault.Vault, error) {
	key, err := c.masterKey()
	if err != nil {
		return nil, err
	}
	previous, err := c.previousKeys()
	if err != nil {
		return nil, err
	}
	return vault.New(key, previous...)
}

// server says where databases are; stop ends a server that had to be started for it.
func (c Config) server(ctx context.Context) (at func(database string) config.Secret, stop func(), err error) {
	if c.DatabaseURL != "" {
		return func(name string) config.Secret {
			u, _ := url.Parse(c.DatabaseURL.Reveal()) // Validate has parsed it
			u.Path = "/" + name
			return config.Secret(u.String())
		}, func() {}, nil
	}
	o := embedded.Options{DataDir: c.DataDir, Clock: clock.System(), HideInstalled: c.IgnoreInstalled}
	if urls, running := embedded.Running(ctx, o); running {
		return func(name string) config.Secret { return config.Secret(urls(name)) }, func() {}, nil
	}
	s, err := embedded.Start(ctx, o)
	if err != nil {
		return nil, nil, err
	}
	stop = func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), pgStopLimit)
		defer cancel()
		_ = s.Stop(ctx) // its supervisor stops it otherwise
	}
	return func(name string) config.Secret { return config.Secret(s.URL(name)) }, stop, nil
}
