package deploy_test

import (
	"context"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"

	gateway "github.com/turumba/turumba/gateway/app"
	"github.com/turumba/turumba/kit/config"
	account "github.com/turumba/turumba/services/account/app"
	messaging "github.com/turumba/turumba/services/messaging/app"
	worker "github.com/turumba/turumba/worker/app"
)

// program is what one of the binaries reads.
type program struct {
	settings []string
	// load loads them.
	load func(environ []string) (any, error)
}

func programOf[T any](func(context.Context, T) error) program {
	return program{settings: config.Names[T](), load: func(environ []string) (any, error) { return config.Load[T](environ) }}
}

var programs = map[string]program{
	"account": programOf(account.Main), "messaging": programOf(messaging.Main), "worker": programOf(worker.Main), "gateway": programOf(gateway.Main),
}

// notPassed are settings that the compose file leaves out, and why.
var notPassed = map[string]string{
	"GRPC_TLS_CERT": "files have to be mounted first: an override file names them and this",
	"GRPC_TLS_KEY":  "as GRPC_TLS_CERT",
	"GRPC_TLS_CA":   "as GRPC_TLS_CERT",
}

// TestSettingsArePassed: what an operator can set reaches the programs that read it, and
// nothing is passed that nobody reads.
func TestSettingsArePassed(t *testing.T) {
	t.Parallel()
	c := read(t)
	for name, p := range programs {
		passed := c.Services[name].Environment
		for _, setting := range p.settings {
			_, ok := passed[setting]
			require.NotEqual(t, notPassed[setting] != "", ok, "%s of %s: the compose file passes it, or notPassed says why not", setting, name)
		}
		for setting := range passed {
			require.Contains(t, p.settings, setting, "%s does not read it", name)
		}
	}
}

var variable = regexp.MustCompile(`\$\{(\w+)(:[-?])([^}]*)\}`)

// TestDefaultsArePassed: who sets nothing but what must be set has the defaults of the
// programs, but for addresses inside the network.
func TestDefaultsArePassed(t *testing.T) {
	t.Parallel()
	needed := map[string]string{
		"TURUMBA_MASTER_KEY": "a2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2s=", "SERVICE_TOKEN": "ssssssssssssssssssssssssssssssss",
		"MAIL_URL": "smtp://mail.example:587?from=a@mail.example",
	}
	c := read(t)
	for name, p := range programs {
		var all, least []string
		for setting, value := range c.Services[name].Environment {
			m := variable.FindStringSubmatch(value)
			whole := m != nil && m[0] == value
			value = variable.ReplaceAllStringFunc(value, func(s string) string {
				if m := variable.FindStringSubmatch(s); m[2] == ":-" {
					return m[3]
				}
				return needed[variable.FindStringSubmatch(s)[1]]
			})
			all = append(all, setting+"="+value)
			if !whole || m[2] == ":?" {
				least = append(least, setting+"="+value)
			}
		}
		want, err := p.load(least)
		require.NoError(t, err, name)
		got, err := p.load(all)
		require.NoError(t, err, name)
		require.Equal(t, want, got, name)
	}
}
