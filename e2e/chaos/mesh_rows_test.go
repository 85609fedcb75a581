package chaos_test

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	messagingv1 "github.com/turumba/turumba/gen/turumba/messaging/v1"
	"github.com/turumba/turumba/kit/clock"
	"github.com/turumba/turumba/kit/grpcserver/certtest"
)

// meshRows break what the services are to each other (catalogue F-90 to F-94).
func meshRows() []row {
	return []row{
		{"F-90", "a service that another refuses", quick, beside, refusedIdentity},
		{"F-91", "services that prove themselves by nothing, or by what nobody accepts", quick, beside, badIdentities},
		{"F-92", "an issuer's bad days", quick, beside, badDays},
		{"F-93", "certificates renewed under calls", quick, beside, renewedCertificates},
		{"F-94", "a service that cannot be reached", quick, beside, unreachable},
	}
}

// another is one more process of a binary, which need not become ready; it ends with
// the row.
func (r *trial) another(name string, env ...string) *program {
	r.t.Helper()
	at := port(r.t)
	p := &program{
		t: r.t, path: filepath.Join(r.dir, name), ready: "http://" + at + "/readyz", log: &logBuffer{},
		env: append(append([]string{"ADMIN_ADDR=" + at}, r.env...), env...),
	}
	r.t.Cleanup(func() {
		p.kill()
		if r.t.Failed() {
			r.t.Logf("the other %s said at last:\n%s", name, p.log.tail())
		}
	})
	p.launch()
	return p
}

// tells waits until the program has logged a line with all of the texts, and returns how
// many there are.
func (r *trial) tells(p *program, texts ...string) (n int) {
	r.t.Helper()
	require.Eventually(r.t, func() bool {
		n = 0
		for line := range strings.Lines(p.log.String()) {
			has := true
			for _, text := range texts {
				has = has && strings.Contains(line, text)
			}
			if has {
				n++
			}
		}
		return n > 0
	}, soon, 20*time.Millisecond, "%s says %q: %s", filepath.Base(p.path), texts, p.log.tail())
	return n
}

// askREST asks a gateway and returns the status and the code of its answer.
func (x *tenant) askREST(base, path string) (code int, reason string, err error) {
	req, err := http.NewRequestWithContext(x.t.Context(), http.MethodGet, base+path, nil)
	if err != nil {
		return 0, "", err
	}
	req.Header.Set("Authorization", "Bearer "+x.token)
	res, err := (&http.Client{Timeout: 10 * time.Second}).Do(req)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = res.Body.Close() }()
	var body struct {
		Code string `json:"code"`
	}
	return res.StatusCode, body.Code, json.NewDecoder(res.Body).Decode(&body)
}

// refusedIdentity starts a messaging service, a worker and a gateway with another token
// than the account service has: their users hear 503, never 401; none is ready; each
// tells its operators why.
func refusedIdentity(r *trial) {
	x := r.tenant(0)
	other := "SERVICE_TOKEN=" + strings.Repeat("o", 32)
	account := "ACCOUNT_ADDR=dns:///" + r.accounts.Addr()
	addr, web := port(r.t), port(r.t)
	messaging := r.another("messaging", other, account, "GRPC_ADDR="+addr, "DATABASE_URL="+socketOf(r.apiDB, "turumba_messaging"))
	worker := r.another("worker", other, account, "WORKER_ROLES=upkeep", "DATABASE_URL="+socketOf(r.workerDB, "turumba_messaging"), "AMQP_URL=amqp://guest:guest@"+r.amqp.Addr()+"/")
	gateway := r.another("gateway", other, account, "HTTP_ADDR="+web, "MESSAGING_ADDR=dns:///"+addr)
	asked := 0
	for _, p := range []*program{messaging, worker, gateway} {
		require.Equal(r.t, 1, r.tells(p, `"level":"ERROR"`, "refuses the identity", "MeshService/Prove", "different SERVICE_TOKENs"))
		require.False(r.t, r.isReady(p), "%s is not ready", filepath.Base(p.path))
	}
	require.Eventually(r.t, func() bool { _, _, err := x.askREST("http://"+web, "/healthz"); return err == nil }, soon, blink)
	for range r.times(50) {
		code, reason, err := x.askREST("http://"+web, "/v1/messages?limit=1")
		require.NoError(r.t, err)
		require.Equal(r.t, http.StatusServiceUnavailable, code, reason)
		require.Equal(r.t, "UNAVAILABLE", reason)
		asked++
	}
	code, _, err := x.askREST("http://"+web, "/readyz")
	require.NoError(r.t, err)
	require.Equal(r.t, http.StatusServiceUnavailable, code)
	require.Equal(r.t, 1, r.tells(messaging, "refuses the identity", "ResolveContext"), "once a minute")
	code, _, err = x.askREST(r.rest, "/v1/messages?limit=1")
	require.NoError(r.t, err)
	require.Equal(r.t, http.StatusOK, code, "the others go on")
	r.did("%d calls of a user, all 503; three processes not ready, each with one line that says why", asked)
}

// badIdentities starts the four binaries with nothing to prove themselves by, and with
// certificates that nobody accepts: they say so and end.
func badIdentities(r *trial) {
	now := clock.System().Now()
	ca, foreign := certtest.NewCA(r.t, now.AddDate(1, 0, 0)), certtest.NewCA(r.t, now.AddDate(1, 0, 0))
	good := func(name string) certtest.Cert {
		return certtest.Cert{Names: []string{name}, Begin: now.Add(-time.Hour), End: now.AddDate(0, 1, 0)}
	}
	ends := 0
	for _, name := range []string{"account", "messaging", "worker", "gateway"} {
		expired := good(name)
		expired.End = now.Add(-time.Minute)
		mixed := ca.Write(r.t, r.t.TempDir(), good(name))
		require.NoError(r.t, os.WriteFile(mixed.CA, foreign.PEM(), 0o600))
		cases := map[string][]string{
			"SERVICE_TOKEN: is required":                       {"SERVICE_TOKEN="},
			"has expired on":                                   ca.Write(r.t, r.t.TempDir(), expired).Env(),
			"is not signed by an authority of GRPC_TLS_CA":     mixed.Env(),
			"GRPC_TLS_CERT, GRPC_TLS_KEY and GRPC_TLS_CA are ": {"GRPC_TLS_CERT=" + mixed.Cert},
		}
		if name != "account" {
			cases[fmt.Sprintf("its first DNS name must be %q", name)] = ca.Write(r.t, r.t.TempDir(), good("somebody")).Env()
		}
		for want, env := range cases {
			p := r.another(name, append([]string{
				"GRPC_ADDR=" + port(r.t), "HTTP_ADDR=" + port(r.t), "ACCOUNT_ADDR=dns:///" + r.accounts.Addr(), "MESSAGING_ADDR=dns:///" + r.accounts.Addr(),
				"DATABASE_URL=" + socketOf(r.apiDB, "turumba_nobody"), "AMQP_URL=amqp://guest:guest@" + r.amqp.Addr() + "/", "MAIL_URL=smtp://127.0.0.1:1?plaintext=true&from=a@b.example",
			}, env...)...)
			require.Equal(r.t, 1, p.dies(), "%s: %s", name, want)
			require.Contains(r.t, p.log.String(), want, name)
			ends++
		}
	}
	r.did("%d starts refused, each in plain words", ends)
}

// keyIssuer is an OpenID issuer that has bad days.
type keyIssuer struct {
	*httptest.Server
	key   *rsa.PrivateKey
	reads atomic.Int64
	doc   atomic.Pointer[string] // nil: 503
}

func newKeyIssuer(r *trial) *keyIssuer {
	r.t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(r.t, err)
	is := &keyIssuer{key: key}
	is.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		is.reads.Add(1)
		doc := is.doc.Load()
		if doc == nil {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write([]byte(*doc))
	}))
	r.t.Cleanup(is.Close)
	return is
}

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// shows lets the issuer answer with its key under the ids.
func (is *keyIssuer) shows(kids ...string) {
	keys := []map[string]string{}
	for _, kid := range kids {
		keys = append(keys, map[string]string{"kty": "RSA", "alg": "RS256", "use": "sig", "kid": kid, "n": b64(is.key.N.Bytes()), "e": b64(big.NewInt(int64(is.key.E)).Bytes())})
	}
	doc, _ := json.Marshal(map[string]any{"keys": keys}) // of texts
	is.answers(string(doc))
}

func (is *keyIssuer) answers(doc string) { is.doc.Store(&doc) }

// token is one of nobody whom we know.
func (is *keyIssuer) token(r *trial, kid string) string {
	r.t.Helper()
	now := clock.System().Now()
	head, err := json.Marshal(map[string]any{"alg": "RS256", "kid": kid})
	require.NoError(r.t, err)
	claims, err := json.Marshal(map[string]any{
		"iss": is.URL, "sub": "nobody", "client_id": "web", "token_use": "access", "jti": fmt.Sprint(r.rand.Uint64()), "iat": now.Unix(), "exp": now.Add(time.Hour).Unix(), "cognito:groups": "staff",
	})
	require.NoError(r.t, err)
	input := b64(head) + "." + b64(claims)
	sum := sha256.Sum256([]byte(input))
	sig, err := rsa.SignPKCS1v15(rand.Reader, is.key, crypto.SHA256, sum[:])
	require.NoError(r.t, err)
	return input + "." + b64(sig)
}

// badDays lets an issuer be down at the first token, lose its keys, and get a new one
// after strangers have asked for many.
func badDays(r *trial) {
	is := newKeyIssuer(r)
	addr := port(r.t)
	host := strings.TrimPrefix(is.URL, "http://")
	env := append([]string{}, r.env...)
	for i, e := range env {
		if strings.HasPrefix(e, "EGRESS_ALLOW=") {
			env[i] = e + ",127.0.0.1/32:" + portOf(host)
		}
	}
	messaging := r.another("messaging", append(env, "ACCOUNT_ADDR=dns:///"+r.accounts.Addr(), "GRPC_ADDR="+addr, "DATABASE_URL="+socketOf(r.apiDB, "turumba_messaging"),
		"OIDC_TRUSTED_ISSUER="+is.URL, "OIDC_TRUSTED_PROFILE=cognito", "OIDC_TRUSTED_AUDIENCE=web")...)
	messaging.await()
	client := messagingv1.NewMessageServiceClient(dial(r.t, addr))
	ask := func(kid string) codes.Code {
		ctx := metadata.AppendToOutgoingContext(r.t.Context(), "authorization", "Bearer "+is.token(r, kid))
		_, err := client.ListMessages(ctx, &messagingv1.ListMessagesRequest{Limit: 1}, grpc.WaitForReady(true))
		return status.Code(err)
	}
	const taken = codes.PermissionDenied // the token is good; nobody is who it is of
	within := func(limit time.Duration, kid string) time.Duration {
		return r.within(limit+busy, "a token of "+kid+" is taken", func() bool { return ask(kid) == taken })
	}

	require.Equal(r.t, codes.Unavailable, ask("k1"), "no key was ever read")
	is.shows("k1")
	first := within(2*time.Second, "k1")
	days := []string{`{"keys":[]}`, `{}`, `<html>maintenance</html>`, `{"keys":[{"kty":"RSA","kid":"k1","use":"enc","n":"AQAB","e":"AQAB"}]}`, `{"keys":[`}
	if !r.full {
		days = days[:2]
	}
	for _, doc := range days {
		is.answers(doc)
		before := is.reads.Load()
		r.within(6*time.Second+busy, "strangers make it read the bad keys", func() bool { _ = ask("stranger"); return is.reads.Load() > before })
		for range 20 {
			require.Equal(r.t, taken, ask("k1"), "known keys go on after %s", doc)
		}
		is.shows("k1")
		r.within(6*time.Second+busy, "the good day is seen", func() bool { return ask("stranger") == codes.Unauthenticated })
	}
	before := is.reads.Load()
	for i := range 200 {
		require.NotEqual(r.t, taken, ask(fmt.Sprint("stranger", i)))
	}
	require.LessOrEqual(r.t, is.reads.Load()-before, int64(10), "strangers do not make it read at will")
	is.shows("k1", "k2")
	rotated := within(6*time.Second, "k2")
	require.Equal(r.t, taken, ask("k1"))
	r.did("down at the first token: taken %s after it was back; %d bad days, known keys went on; a new key after 200 strangers: taken after %s", first, len(days), rotated)
}

// renewedCertificates puts new certificates, and then wrong ones, into the files of an
// account service, a messaging service and a gateway that are called meanwhile.
func renewedCertificates(r *trial) {
	x := r.tenant(0)
	now := clock.System().Now()
	ca := certtest.NewCA(r.t, now.AddDate(1, 0, 0))
	want := func(name string, days int) certtest.Cert {
		return certtest.Cert{Names: []string{name}, Begin: now.Add(-time.Hour), End: now.AddDate(0, 0, days)}
	}
	names, dirs, all := []string{"account", "messaging", "gateway"}, map[string]string{}, map[string]*program{}
	accountAddr, messagingAddr, web := port(r.t), port(r.t), port(r.t)
	settings := map[string][]string{
		"account":   {"GRPC_ADDR=" + accountAddr, "DATABASE_URL=" + socketOf(r.accountDB, "turumba_account"), "MAIL_URL=smtp://127.0.0.1:1?plaintext=true&from=a@b.example"},
		"messaging": {"GRPC_ADDR=" + messagingAddr, "DATABASE_URL=" + socketOf(r.apiDB, "turumba_messaging"), "ACCOUNT_ADDR=dns:///" + accountAddr},
		"gateway":   {"HTTP_ADDR=" + web, "ACCOUNT_ADDR=dns:///" + accountAddr, "MESSAGING_ADDR=dns:///" + messagingAddr},
	}
	for _, name := range names {
		dirs[name] = r.t.TempDir()
		files := ca.Write(r.t, dirs[name], want(name, 30))
		all[name] = r.another(name, append(append(files.Env(), "SERVICE_TOKEN="), settings[name]...)...)
	}
	for _, name := range names {
		all[name].await()
	}

	var calls atomic.Int64
	var failed atomic.Value // what the first call that failed got
	var busyCalls sync.WaitGroup
	stop := make(chan struct{})
	for range 4 {
		busyCalls.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				code, reason, err := x.askREST("http://"+web, "/v1/messages?limit=1")
				if err != nil || code != http.StatusOK {
					failed.CompareAndSwap(nil, fmt.Sprintf("%d %s %v", code, reason, err))
					return
				}
				calls.Add(1)
			}
		})
	}
	ends := func(name string) float64 {
		return r.metric(all[name], "turumba_mesh_certificate_expiry_timestamp_seconds")
	}
	var slowest time.Duration
	for n := range r.times(20) {
		for _, name := range names {
			ca.Write(r.t, dirs[name], want(name, 31+n))
		}
		for _, name := range names {
			slowest = max(slowest, r.within(10*time.Second, name+" shows the new certificate", func() bool { return ends(name) == float64(want(name, 31+n).End.Unix()) }))
		}
	}
	for _, name := range names { // half written
		cert, err := os.ReadFile(filepath.Join(dirs[name], "cert.pem"))
		require.NoError(r.t, err)
		require.NoError(r.t, os.WriteFile(filepath.Join(dirs[name], "cert.pem"), bytes.TrimSpace(cert)[:len(cert)/2], 0o600))
	}
	for _, name := range names {
		require.Equal(r.t, 1, r.tells(all[name], `"level":"ERROR"`, "is not taken", "GRPC_TLS_CERT"))
		require.True(r.t, r.isReady(all[name]), "%s goes on with the former", name)
	}
	before := calls.Load()
	require.Eventually(r.t, func() bool { return failed.Load() != nil || calls.Load() > before+20 }, soon, blink)
	close(stop)
	busyCalls.Wait()
	require.Nil(r.t, failed.Load(), "a call failed")
	r.did("%d calls, none failed; renewed %d times on three processes, each seen within %s; half a file: told of and not taken", calls.Load(), r.times(20), slowest)
}

// unreachable kills the messaging service: the gateway says why its calls fail, is not
// ready, and says when it is over.
func unreachable(r *trial) {
	x, times := r.tenant(0), r.times(3)
	web := port(r.t)
	_, addr, found := strings.Cut(strings.Join(r.messaging.env, "\n"), "GRPC_ADDR=")
	require.True(r.t, found)
	addr, _, _ = strings.Cut(addr, "\n")
	for range times {
		gateway := r.another("gateway", "HTTP_ADDR="+web, "ACCOUNT_ADDR=dns:///"+r.accounts.Addr(), "MESSAGING_ADDR=dns:///"+addr)
		gateway.await()
		r.messaging.kill()
		for range 20 {
			code, reason, err := x.askREST("http://"+web, "/v1/messages?limit=1")
			require.NoError(r.t, err)
			require.Equal(r.t, http.StatusServiceUnavailable, code, reason)
		}
		r.within(5*time.Second, "the gateway is not ready", func() bool { return !r.isReady(gateway) })
		require.LessOrEqual(r.t, r.tells(gateway, `"level":"ERROR"`, "cannot be reached", `"peer":"messaging"`), 3, "by cause, once a minute")
		r.messaging.start()
		r.within(10*time.Second, "the gateway is ready", func() bool { return r.isReady(gateway) })
		r.tells(gateway, `"level":"INFO"`, "reached again", `"peer":"messaging"`)
		gateway.kill()
	}
	r.messagingConn.ResetConnectBackoff()
	r.did("%d times away: 503, not ready, the cause in the log, and its end", times)
}
