package deploy_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"
)

// compose is the part of a compose file that we hold to rules.
type compose struct {
	Services map[string]service `yaml:"services"`
	Networks map[string]any     `yaml:"networks"`
}

type service struct {
	Image string `yaml:"image"`
	Build struct {
		Dockerfile string            `yaml:"dockerfile"`
		Args       map[string]string `yaml:"args"`
	} `yaml:"build"`
	Ports       []string          `yaml:"ports"`
	Networks    []string          `yaml:"networks"`
	Environment map[string]string `yaml:"environment"`
	DependsOn   map[string]struct {
		Condition string `yaml:"condition"`
	} `yaml:"depends_on"`
	Healthcheck struct {
		Test []string `yaml:"test"`
	} `yaml:"healthcheck"`
	Restart string `yaml:"restart"`
}

func read(t *testing.T) compose {
	t.Helper()
	raw, err := os.ReadFile("../../docker-compose.yml")
	require.NoError(t, err)
	var c compose
	require.NoError(t, yaml.Unmarshal(raw, &c))
	return c
}

func TestServices(t *testing.T) {
	t.Parallel()
	c := read(t)
	var names []string
	for name, s := range c.Services {
		names = append(names, name)
		require.Equal(t, []string{"gateway-network"}, s.Networks, name)
		require.NotEmpty(t, s.Healthcheck.Test, "%s has a health check", name)
		require.NotEmpty(t, s.Restart, name)
		if name == "gateway" {
			require.Equal(t, []string{"8080:8080"}, s.Ports)
		} else {
			require.Empty(t, s.Ports, "only the gateway is published, not %s", name)
		}
	}
	slices.Sort(names)
	require.Equal(t, []string{"account", "gateway", "messaging", "mongo", "postgres", "rabbitmq", "worker"}, names)
	require.Contains(t, c.Networks, "gateway-network")
	for name, image := range map[string]string{"postgres": "postgres:15", "mongo": "mongo:6", "rabbitmq": "rabbitmq:3-management"} {
		require.Equal(t, image, c.Services[name].Image)
	}
}

// TestStartOrder: nobody starts before what it needs is healthy.
func TestStartOrder(t *testing.T) {
	t.Parallel()
	c := read(t)
	for name, needs := range map[string][]string{
		"account": {"postgres"}, "messaging": {"account", "postgres"}, "worker": {"account", "messaging", "rabbitmq"}, "gateway": {"account", "messaging"},
	} {
		for _, need := range needs {
			require.Equal(t, "service_healthy", c.Services[name].DependsOn[need].Condition, "%s needs %s", name, need)
		}
	}
	state := map[string]int{}
	for name := range c.Services {
		require.NoError(t, visit(c, name, state))
	}
}

// visit finds circles.
func visit(c compose, name string, state map[string]int) error {
	const open, done = 1, 2
	switch state[name] {
	case open:
		return fmt.Errorf("%s waits for itself", name)
	case done:
		return nil
	}
	state[name] = open
	for need := range c.Services[name].DependsOn {
		if err := visit(c, need, state); err != nil {
			return err
		}
	}
	state[name] = done
	return nil
}

// TestBuilds: each of our services is built from a command that exists, and
// secrets are asked for, not made up.
func TestBuilds(t *testing.T) {
	t.Parallel()
	c := read(t)
	for _, name := range []string{"account", "messaging", "worker", "gateway"} {
		s := c.Services[name]
		require.Equal(t, []string{"CMD", "/app", "health"}, s.Healthcheck.Test)
		require.FileExists(t, "../../"+s.Build.Dockerfile)
		require.FileExists(t, fmt.Sprintf("../../%s/cmd/%s/main.go", s.Build.Args["MODULE"], s.Build.Args["BINARY"]))
		for _, secret := range []string{"TURUMBA_MASTER_KEY", "SERVICE_TOKEN", "MAIL_URL"} {
			if value, ok := s.Environment[secret]; ok {
				require.True(t, strings.HasPrefix(value, "${"+secret+":?"), "%s of %s must be given", secret, name)
			}
		}
	}
	require.Contains(t, c.Services["gateway"].Environment, "TRUSTED_PROXIES")
	require.Contains(t, c.Services["account"].Environment, "TURUMBA_OPERATORS")
	image, err := os.ReadFile("../../deploy/Dockerfile")
	require.NoError(t, err)
	require.Contains(t, string(image), "distroless/static-debian12:nonroot")
	require.Contains(t, string(image), "USER nonroot:nonroot")
}
