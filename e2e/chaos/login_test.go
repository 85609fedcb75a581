package chaos_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/turumba/turumba/cmd/turumba/single"
	"github.com/turumba/turumba/kit/config"
	"github.com/turumba/turumba/kit/telemetry"
)

// caller is a user of the REST face.
type caller struct {
	t           *testing.T
	base, token string
}

// call makes a request and returns the object that answers it.
func (c *caller) call(method, path string, body any) map[string]any {
	c.t.Helper()
	var raw []byte
	if body != nil {
		var err error
		raw, err = json.Marshal(body)
		require.NoError(c.t, err)
	}
	req, err := http.NewRequestWithContext(c.t.Context(), method, c.base+"/v1"+path, bytes.NewReader(raw))
	require.NoError(c.t, err)
	req.Header.Set("Content-Type", "application/json")
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	res, err := (&http.Client{Timeout: 30 * time.Second}).Do(req)
	require.NoError(c.t, err)
	defer func() { require.NoError(c.t, res.Body.Close()) }()
	var out map[string]any
	require.NoError(c.t, json.NewDecoder(res.Body).Decode(&out))
	require.Less(c.t, res.StatusCode, 400, "%s %s: %v", method, path, out)
	return out
}

// TestRefusedLogin: a provider that refuses the login breaks the channel and not
// the send; its messages stay queued and flow once the password is right.
func TestRefusedLogin(t *testing.T) {
	t.Setenv("SIM_USERNAME", "office")
	t.Setenv("SIM_PASSWORD", "right")
	simulator := startSimulator(t)
	host, smtp := simulator.HostPort()
	cfg, err := config.Load[single.Config]([]string{
		"HTTP_ADDR=127.0.0.1:0", "GRPC_ADDR=127.0.0.1:0", "ADMIN_ADDR=127.0.0.1:0", "TURUMBA_DATA_DIR=" + t.TempDir(),
		fmt.Sprintf("MAIL_URL=smtp://office:right@%s:%d?plaintext=true&from=no-reply@turumba.example", host, smtp),
		fmt.Sprintf("EGRESS_ALLOW=%s/32:%d", host, smtp),
	})
	require.NoError(t, err)
	in, err := single.Start(t.Context(), cfg, telemetry.Discard(), false)
	require.NoError(t, err)
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- in.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		require.NoError(t, <-done)
	})

	c := &caller{t: t, base: in.URL}
	registered := c.call(http.MethodPost, "/auth/register", map[string]any{"email": "a@login.example", "password": "correct horse battery", "full_name": "Ada", "account_name": "A"})
	code, err := simulator.Code(t.Context(), "a@login.example")
	require.NoError(t, err)
	c.call(http.MethodPost, "/auth/verify-email", map[string]any{"email": "a@login.example", "code": code, "registration_token": registered["registration_token"]})
	c.token = c.call(http.MethodPost, "/auth/login", map[string]any{"email": "a@login.example", "password": "correct horse battery"})["access_token"].(string)
	group := c.call(http.MethodPost, "/groups", map[string]any{"name": "G"})["id"].(string)
	var contacts []any
	for i := range 200 {
		contacts = append(contacts, c.call(http.MethodPost, "/contacts", map[string]any{"first_name": "P", "email": fmt.Sprintf("p%d@login.example", i)})["id"])
	}
	c.call(http.MethodPost, "/groups/"+group+"/contacts", map[string]any{"contact_ids": contacts})
	channel := c.call(http.MethodPost, "/channels", map[string]any{"name": "C", "credentials": map[string]any{"smtp": map[string]any{
		"host": host, "port": smtp, "tls_mode": "none", "allow_plaintext": true, "from_email": "o@login.example", "username": "office", "password": "wrong",
	}}})["id"].(string)
	send := c.call(http.MethodPost, "/group-messages", map[string]any{"channel_id": channel, "message_body": "Hi {FIRST_NAME}", "contact_group_ids": []any{group}, "status": "queued"})["id"].(string)
	state := func() map[string]any { return c.call(http.MethodGet, "/group-messages/"+send, nil) }

	require.Eventually(t, func() bool { return c.call(http.MethodGet, "/channels/"+channel, nil)["status"] == "error" }, patience, 20*time.Millisecond)
	require.Eventually(t, func() bool { return state()["pending_count"] == 200.0 }, patience, 20*time.Millisecond)
	require.Equal(t, "processing", state()["status"])
	require.NotEmpty(t, c.call(http.MethodGet, "/channels/"+channel, nil)["error_message"])

	c.call(http.MethodPatch, "/channels/"+channel, map[string]any{"credentials": map[string]any{"smtp": map[string]any{"password": "right"}}})
	require.Equal(t, "connected", c.call(http.MethodPost, "/channels/"+channel+"/verify", nil)["status"])
	require.Eventually(t, func() bool { return state()["status"] == "completed" }, patience, 20*time.Millisecond)
	require.EqualValues(t, 200, state()["sent_count"])
}
