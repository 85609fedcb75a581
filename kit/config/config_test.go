package config_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/kit/config"
)

type limits struct {
	Rate int `env:"RATE" envDefault:"10" flag:"rate"`
}

func (l limits) Validate() error {
	if l.Rate <= 0 {
		return errors.New("RATE: must be positive")
	}
	return nil
}

type settings struct {
	Port     int           `env:"PORT" envDefault:"8080" flag:"port" help:"Port to listen on."`
	Database config.Secret `env:"DATABASE_URL,required"`
	Timeout  time.Duration `env:"TIMEOUT" envDefault:"5s" flag:"timeout"`
	Roles    []string      `env:"ROLES" flag:"roles"`
	Debug    bool          `env:"DEBUG" flag:"debug"`
	Limits   limits        `envPrefix:"MAIL_"`
}

func (s *settings) Validate() error {
	var problems []error
	if s.Port > 65535 {
		problems = append(problems, errors.New("PORT: must be at most 65535"))
	}
	if s.Timeout < 0 {
		problems = append(problems, errors.New("TIMEOUT: must not be negative"))
	}
	return errors.Join(problems...)
}

func TestLoad(t *testing.T) {
	t.Parallel()
	got, err := config.Load[settings](
		[]string{"DATABASE_URL=postgres://u:p@h/d", "PORT=1", "MAIL_RATE=7"},
		"--port=9090", "-roles", "relay,fanout", "--debug")
	require.NoError(t, err)
	require.Equal(t, settings{
		Port: 9090, Database: "postgres://u:p@h/d", Timeout: 5 * time.Second,
		Roles: []string{"relay", "fanout"}, Debug: true, Limits: limits{Rate: 7},
	}, got)
}

func TestNames(t *testing.T) {
	t.Parallel()
	require.Equal(t, []string{"PORT", "DATABASE_URL", "TIMEOUT", "ROLES", "DEBUG", "MAIL_RATE"}, config.Names[settings]())
}

func TestLoadReportsEverything(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name    string
		environ []string
		args    []string
		want    []string
	}{
		{"missing and malformed", []string{"PORT=x", "TIMEOUT=soon"}, []string{"--nope", "stray", "--rate"}, []string{
			"--nope: unknown flag",
			"--rate: needs a value",
			"DATABASE_URL: is required",
			`PORT: is not a valid int: strconv.ParseInt: parsing "x": invalid syntax`,
			`TIMEOUT: is not a valid duration (such as 500ms or 2m): unable to parse duration: time: invalid duration "soon"`,
			"stray: unexpected argument",
		}},
		{"rules", []string{"DATABASE_URL=x", "PORT=70000", "TIMEOUT=-1s", "MAIL_RATE=-1"}, nil, []string{
			"PORT: must be at most 65535", "RATE: must be positive", "TIMEOUT: must not be negative",
		}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			_, err := config.Load[settings](c.environ, c.args...)
			var all *config.Error
			require.ErrorAs(t, err, &all)
			require.Equal(t, c.want, all.Problems)
		})
	}
}

func TestHelp(t *testing.T) {
	t.Parallel()
	_, err := config.Load[settings](nil, "--help")
	require.ErrorIs(t, err, config.ErrHelp)
	require.Contains(t, config.Usage[settings](), "  PORT, --port (default 8080)\n      Port to listen on.\n")
	require.Contains(t, config.Usage[settings](), "  DATABASE_URL (required)\n")
	require.Contains(t, config.Usage[settings](), "  MAIL_RATE, --rate (default 10)\n")
}

func TestSecretNeverShows(t *testing.T) {
	t.Parallel()
	secret := config.Secret("hunter2")
	encoded, err := json.Marshal(map[string]any{"s": secret, "in": settings{Database: secret}})
	require.NoError(t, err)
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "s", secret, "cfg", settings{Database: secret})
	shown := string(encoded) + log.String()
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d", "%T"} {
		shown += fmt.Sprintf(verb, secret) + fmt.Sprintf(verb, settings{Database: secret})
	}
	require.NotContains(t, shown, "hunter2")
	require.NotContains(t, shown, fmt.Sprintf("%x", "hunter2"))
	require.Contains(t, shown, "***")
	require.Equal(t, "hunter2", secret.Reveal())
	require.Empty(t, config.Secret("").String())
}
