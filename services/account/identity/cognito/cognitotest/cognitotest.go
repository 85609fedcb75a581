// Package cognitotest gives tests a user pool: cognito-local, an emulator of Amazon
// Cognito that npm installs at a pinned version and that works offline. Where it cannot
// be had the test is skipped loudly, and fails where CI=true.
package cognitotest

import (
	"context"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	idp "github.com/aws/aws-sdk-go-v2/service/cognitoidentityprovider"
	"github.com/aws/aws-sdk-go-v2/service/cognitoidentityprovider/types"
	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/kit/config"
	"github.com/turumba/turumba/kit/egress"
	"github.com/turumba/turumba/services/account/identity/cognito"
)

// Code is what the emulator mails, always.
const Code = "135790"

// Pool is a user pool of an emulator that runs for one test.
type Pool struct {
	// Settings are how the provider reaches it.
	Settings cognito.Settings
	// HTTP may reach it, and nothing else that is private.
	HTTP *http.Client
	// Admin calls it as an operator of AWS would.
	Admin *idp.Client
}

var installed struct {
	sync.Once
	node, program string
	err           error
}

// Start starts an emulator with an empty pool; it stops when the test ends.
func Start(t *testing.T) *Pool {
	t.Helper()
	installed.Do(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 5*time.Minute)
		defer cancel()
		installed.node, installed.program, installed.err = Install(ctx)
	})
	if installed.err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("no cognito-local for the tests: %v", installed.err)
		}
		t.Skipf("SKIP-COGNITO: %v", installed.err)
	}
	endpoint := run(t)
	p := &Pool{HTTP: Client(t, endpoint)}
	p.Admin = idp.New(idp.Options{
		Region: "us-east-1", BaseEndpoint: &endpoint, HTTPClient: p.HTTP, Credentials: credentials.NewStaticCredentialsProvider("local", "local", ""),
	})
	pool, err := p.Admin.CreateUserPool(t.Context(), &idp.CreateUserPoolInput{
		PoolName: aws.String("test"), UsernameAttributes: []types.UsernameAttributeType{types.UsernameAttributeTypeEmail}, MfaConfiguration: types.UserPoolMfaTypeOptional,
	})
	require.NoError(t, err)
	client, err := p.Admin.CreateUserPoolClient(t.Context(), &idp.CreateUserPoolClientInput{UserPoolId: pool.UserPool.Id, ClientName: aws.String("web")})
	require.NoError(t, err)
	p.Settings = Settings(endpoint, *pool.UserPool.Id, *client.UserPoolClient.ClientId)
	return p
}

// Settings are those of a pool at an endpoint of the test's own.
func Settings(endpoint, pool, client string) cognito.Settings {
	return cognito.Settings{
		Region: "us-east-1", UserPoolID: pool, ClientID: client, Endpoint: endpoint, AccessKeyID: "local", SecretAccessKey: config.Secret("local"),
	}
}

// Client is an HTTP client by kit/egress that may also reach the endpoint.
func Client(t *testing.T, endpoint string) *http.Client {
	t.Helper()
	u, err := url.Parse(endpoint)
	require.NoError(t, err)
	rules, err := egress.ParseAllow(u.Hostname() + "/32:" + u.Port())
	require.NoError(t, err)
	client := egress.NewDialer(egress.Options{Allow: rules}).HTTPClient(egress.HTTPOptions{})
	t.Cleanup(client.CloseIdleConnections)
	return client
}

// AddToGroup makes a user of the pool a member of a group.
func (p *Pool) AddToGroup(t *testing.T, email, group string) {
	t.Helper()
	_, err := p.Admin.CreateGroup(t.Context(), &idp.CreateGroupInput{UserPoolId: &p.Settings.UserPoolID, GroupName: &group})
	require.NoError(t, err)
	_, err = p.Admin.AdminAddUserToGroup(t.Context(), &idp.AdminAddUserToGroupInput{UserPoolId: &p.Settings.UserPoolID, GroupName: &group, Username: &email})
	require.NoError(t, err)
}

// run starts the emulator on a free port and waits until it answers.
func run(t *testing.T) (endpoint string) {
	t.Helper()
	port := freePort(t)
	// The clean-up ends it, not the context of the test.
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), installed.node, installed.program)
	cmd.Dir = t.TempDir() // where it keeps its data
	cmd.Env = append(os.Environ(), "HOST=127.0.0.1", "PORT="+strconv.Itoa(port), "CODE="+Code)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		require.NoError(t, cmd.Process.Kill())
		_ = cmd.Wait() // it was killed
	})
	endpoint = "http://127.0.0.1:" + strconv.Itoa(port)
	client := Client(t, endpoint)
	require.Eventually(t, func() bool {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, endpoint+"/health", nil)
		require.NoError(t, err)
		res, err := client.Do(req)
		if err != nil {
			return false
		}
		return res.Body.Close() == nil && res.StatusCode == http.StatusOK
	}, time.Minute, 20*time.Millisecond, "cognito-local did not start")
	return endpoint
}

func freePort(t *testing.T) int {
	t.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { require.NoError(t, l.Close()) }()
	return l.Addr().(*net.TCPAddr).Port
}
