// Package single runs the whole mesh in one process, with an own PostgreSQL, an
// in-process bus and a simulated mail provider where nothing else is configured.
// The code is that of the separate binaries; only the connections between them
// are shorter.
package single

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"

	gateway "github.com/turumba/turumba/gateway/app"
	"github.com/turumba/turumba/kit/config"
	"github.com/turumba/turumba/kit/egress"
	"github.com/turumba/turumba/kit/process"
	"github.com/turumba/turumba/kit/vault"
	account "github.com/turumba/turumba/services/account/app"
	"github.com/turumba/turumba/services/messaging"
)

// Config is everything that can be set; nothing must be.
type Config struct {
	gateway.Config
	process.Admin
	// GRPCAddr is where gRPC of all services is served.
	GRPCAddr string `env:"GRPC_ADDR" envDefault:"127.0.0.1:9000" flag:"grpc" help:"address that gRPC is served on"`
	// DataDir holds PostgreSQL's data, the master key and the simulator's journal.
	DataDir string `env:"TURUMBA_DATA_DIR" flag:"data-dir" help:"folder of the data; default: a folder of the user (up), a temporary one (demo)"`
	// DatabaseURL is a server with both databases.
	DatabaseURL config.Secret `env:"DATABASE_URL" help:"PostgreSQL 15 or newer to use instead of an own one; its databases turumba_account and turumba_messaging are created"`
	// MongoURL is where contacts are.
	MongoURL config.Secret `env:"MONGODB_URL" help:"MongoDB for contacts and their groups: mongodb://user:password@host:port/turumba_account; default: PostgreSQL"`
	// IgnoreInstalled runs PostgreSQL from the npm package.
	IgnoreInstalled bool `env:"TURUMBA_PG_IGNORE_INSTALLED" help:"true: do not use a PostgreSQL that is installed on this machine"`
	// AMQPURL is a broker.
	AMQPURL config.Secret `env:"AMQP_URL" help:"RabbitMQ to use instead of the in-process bus"`
	// MailURL is the server for our own mails.
	MailURL config.Secret `env:"MAIL_URL" help:"smtp://user:password@host:port?from=address for verification codes; default: the simulator's mailbox"`
	// Operators are the users who operate the platform.
	Operators []string `env:"TURUMBA_OPERATORS" help:"comma-separated e-mail addresses of the users who operate the platform"`
	// MasterKey opens the vault.
	MasterKey config.Secret `env:"TURUMBA_MASTER_KEY" help:"32 bytes in base64; default: master.key in the data folder, made at the first start"`
	// PreviousKeys open what was sealed before.
	PreviousKeys config.Secret `env:"TURUMBA_MASTER_KEY_PREVIOUS" help:"former master keys, comma-separated, while keys are being rotated; default: master.key.previous in the data folder, if there is one"`
	// Issuer is the iss of tokens.
	Issuer string `env:"OIDC_ISSUER" envDefault:"http://localhost:8080" help:"issuer of our own tokens; the public URL"`
	// PublicURL is where people reach the gateway.
	PublicURL string `env:"PUBLIC_URL" help:"where people reach the gateway, for links in messages; empty: no unsubscribe links"`
	// Hold keeps messages from leaving until an operator releases them.
	Hold bool `env:"TURUMBA_HOLD" flag:"hold" help:"hold what is to be sent until turumba release: for a start on a restored backup"`
	// Quotas are those of accounts that have none of their own.
	Quotas account.QuotaSettings
	// MessageRetentionDays is how long texts of messages are kept by default.
	MessageRetentionDays uint16 `env:"TURUMBA_MESSAGE_RETENTION_DAYS" envDefault:"0" help:"days for which the texts of messages are kept after their end, where an account sets none; 0: for ever"`
	// Identity says where people's logins are.
	Identity account.IdentitySettings
	// EgressAllow are the private addresses that may be reached.
	EgressAllow string `env:"EGRESS_ALLOW" help:"CIDR:port,… that may be reached although private"`
}

// Validate reports what Load cannot see by the types.
func (c Config) Validate() error {
	var problems []error
	if _, err := egress.ParseAllow(c.EgressAllow); err != nil {
		problems = append(problems, fmt.Errorf("EGRESS_ALLOW: %w", err))
	}
	if c.MasterKey != "" {
		if _, err := vault.ParseKey(c.MasterKey.Reveal()); err != nil {
			problems = append(problems, fmt.Errorf("TURUMBA_MASTER_KEY: %w", err))
		}
	}
	if err := messaging.CheckPublicURL(c.PublicURL); err != nil {
		problems = append(problems, err)
	}
	if _, err := vault.ParsePrevious(c.PreviousKeys.Reveal()); err != nil {
		problems = append(problems, fmt.Errorf("TURUMBA_MASTER_KEY_PREVIOUS: %w", err))
	}
	if u, err := url.Parse(c.DatabaseURL.Reveal()); c.DatabaseURL != "" && (err != nil || (u.Scheme != "postgres" && u.Scheme != "postgresql")) {
		problems = append(problems, errors.New("DATABASE_URL is not a PostgreSQL URL (expected postgres://user:password@host:port/database)"))
	}
	return errors.Join(problems...)
}

// UserDataDir is where `up` keeps its data by default (XDG Base Directory).
func UserDataDir() (string, error) {
	if dir := os.Getenv("XDG_DATA_HOME"); dir != "" {
		return filepath.Join(dir, "turumba"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("find a folder for the data: %w (set TURUMBA_DATA_DIR)", err)
	}
	return filepath.Join(home, ".local", "share", "turumba"), nil
}

// masterKey is the one given, or that of the data folder, made at the first
// start. A folder whose key is gone is not given a new one: it would open
// nothing.
func (c Config) masterKey() ([]byte, error) {
	if c.MasterKey != "" {
		return vault.ParseKey(c.MasterKey.Reveal())
	}
	file := filepath.Join(c.DataDir, "master.key")
	if exists(filepath.Join(c.DataDir, "postgres")) && !exists(file) {
		return nil, fmt.Errorf("the master key is missing: %s does not exist, and the data in %s was stored with one (restore the file or set TURUMBA_MASTER_KEY)", file, c.DataDir)
	}
	return vault.LoadOrCreateKey(file)
}

// previousKeys are those given, or that of the data folder, if there is one.
func (c Config) previousKeys() ([][]byte, error) {
	if c.PreviousKeys != "" {
		return vault.ParsePrevious(c.PreviousKeys.Reveal())
	}
	file := filepath.Join(c.DataDir, "master.key.previous")
	if c.MasterKey != "" || !exists(file) {
		return nil, nil
	}
	key, err := vault.LoadOrCreateKey(file)
	return [][]byte{key}, err
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// prepareDataDir makes the folder; the error names it and the setting.
func (c Config) prepareDataDir() error {
	err := os.MkdirAll(c.DataDir, 0o700)
	if err == nil {
		probe := filepath.Join(c.DataDir, ".probe")
		if err = os.WriteFile(probe, nil, 0o600); err == nil {
			err = os.Remove(probe)
		}
	}
	if err != nil {
		return fmt.Errorf("the data folder cannot be written: %w (set TURUMBA_DATA_DIR)", err)
	}
	return nil
}
