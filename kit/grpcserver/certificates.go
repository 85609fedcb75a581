package grpcserver

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/credentials"

	"github.com/turumba/turumba/kit/clock"
)

const (
	// readAgain is how often the files are looked at: a renewal counts within 10 s.
	readAgain = 5 * time.Second
	// warnBefore is how long before its end a certificate is warned of, every warnEvery.
	warnBefore = 14 * 24 * time.Hour
	warnEvery  = 24 * time.Hour
)

// role is what a service needs its certificate for.
type role struct {
	service       string
	serves, calls bool
}

// files are the contents of the three files.
type files struct{ cert, key, ca []byte }

func (f files) equal(o files) bool {
	return bytes.Equal(f.cert, o.cert) && bytes.Equal(f.key, o.key) && bytes.Equal(f.ca, o.ca)
}

// read reads the files; none when mTLS is off.
func (m Mesh) read() (f files, err error) {
	var problems []error
	for _, file := range []struct {
		setting, path string
		to            *[]byte
	}{{"GRPC_TLS_CERT", m.CertFile, &f.cert}, {"GRPC_TLS_KEY", m.KeyFile, &f.key}, {"GRPC_TLS_CA", m.CAFile, &f.ca}} {
		if *file.to, err = os.ReadFile(file.path); err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", file.setting, err))
		}
	}
	return f, errors.Join(problems...)
}

// material is a certificate in use.
type material struct {
	files
	server, client credentials.TransportCredentials
	end            time.Time // of the certificate, or of what signed it if that is sooner
}

// parse makes credentials of the files.
func (m Mesh) parse(f files) (material, tls.Certificate, *x509.CertPool, error) {
	cert, err := tls.X509KeyPair(f.cert, f.key)
	if err != nil {
		return material{}, cert, nil, fmt.Errorf("GRPC_TLS_CERT, GRPC_TLS_KEY: %s and %s: %w", m.CertFile, m.KeyFile, err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(f.ca) {
		return material{}, cert, nil, fmt.Errorf("GRPC_TLS_CA: %s holds no certificate", m.CAFile)
	}
	own := []tls.Certificate{cert}
	return material{
		files:  f,
		server: credentials.NewTLS(&tls.Config{Certificates: own, ClientCAs: pool, ClientAuth: tls.VerifyClientCertIfGiven, MinVersion: tls.VersionTLS13}),
		client: credentials.NewTLS(&tls.Config{Certificates: own, RootCAs: pool, MinVersion: tls.VersionTLS13}),
	}, cert, pool, nil
}

// check holds a certificate to what the other services will hold it to, in plain words.
func (m Mesh) check(f files, r role, now time.Time) (material, error) {
	out, cert, pool, err := m.parse(f)
	if err != nil {
		return out, err
	}
	leaf := cert.Leaf
	out.end = leaf.NotAfter
	between := x509.NewCertPool()
	for _, der := range cert.Certificate[1:] {
		if c, err := x509.ParseCertificate(der); err == nil {
			between.AddCert(c)
		}
	}
	wrong := func(format string, a ...any) (material, error) {
		return material{}, fmt.Errorf("GRPC_TLS_CERT: %s "+format, append([]any{m.CertFile}, a...)...)
	}
	switch {
	case now.After(leaf.NotAfter):
		return wrong("has expired on %s", leaf.NotAfter.UTC().Format(time.RFC3339))
	case now.Before(leaf.NotBefore):
		return wrong("is not valid before %s", leaf.NotBefore.UTC().Format(time.RFC3339))
	case r.calls && (len(leaf.DNSNames) == 0 || leaf.DNSNames[0] != r.service):
		return wrong("is of %q: its first DNS name must be %q, by which other services know this one", leaf.DNSNames, r.service)
	case len(leaf.DNSNames)+len(leaf.IPAddresses) == 0:
		return wrong("has no DNS name and no address, by which clients know whom they reached")
	}
	for _, need := range []struct {
		yes   bool
		usage x509.ExtKeyUsage
		name  string
	}{{r.serves, x509.ExtKeyUsageServerAuth, "servers (serverAuth)"}, {r.calls, x509.ExtKeyUsageClientAuth, "clients (clientAuth)"}} {
		if !need.yes {
			continue
		}
		chains, err := leaf.Verify(x509.VerifyOptions{Roots: pool, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{need.usage}})
		var invalid x509.CertificateInvalidError
		if errors.As(err, &invalid) && invalid.Reason == x509.IncompatibleUsage {
			return wrong("is not made for %s", need.name)
		}
		if err != nil {
			return wrong("is not signed by an authority of GRPC_TLS_CA, %s: %w", m.CAFile, err)
		}
		if end := lastEnd(chains); end.Before(out.end) {
			out.end = end
		}
	}
	return out, nil
}

// lastEnd is when the last of the chains ends.
func lastEnd(chains [][]*x509.Certificate) (last time.Time) {
	for _, chain := range chains {
		end := chain[0].NotAfter
		for _, c := range chain {
			if c.NotAfter.Before(end) {
				end = c.NotAfter
			}
		}
		if end.After(last) {
			last = end
		}
	}
	return last
}

// certificates are this process's certificate, key and authority, read again while it
// runs. What is wrong when it is renewed is not taken: the former stays.
type certificates struct {
	mesh  Mesh
	role  role
	log   *slog.Logger
	clock clock.Clock
	now   atomic.Pointer[material]

	mu       sync.Mutex
	problem  string    // of the last look; empty: none
	toldAt   time.Time // of problem
	warnedAt time.Time // of an end that is near
	refused  time.Time // when a client's certificate was told of
}

// openCertificates reads and checks the files at start.
func openCertificates(ctx context.Context, m Mesh, r role, log *slog.Logger, c clock.Clock) (*certificates, error) {
	f, err := m.read()
	if err != nil {
		return nil, err
	}
	in, err := m.check(f, r, c.Now())
	if err != nil {
		return nil, err
	}
	cs := &certificates{mesh: m, role: r, log: log, clock: c}
	cs.now.Store(&in)
	cs.look(ctx)
	return cs, nil
}

// look reads the files again and tells what is wrong with them.
func (cs *certificates) look(ctx context.Context) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	now, in := cs.clock.Now(), cs.now.Load()
	f, err := cs.mesh.read()
	if err == nil && !f.equal(in.files) {
		var renewed material
		if renewed, err = cs.mesh.check(f, cs.role, now); err == nil {
			cs.now.Store(&renewed)
			in, cs.warnedAt = &renewed, time.Time{}
			cs.log.InfoContext(ctx, "the certificate was read again", "file", cs.mesh.CertFile, "ends", in.end.UTC())
		}
	}
	cs.tell(ctx, now, in.end, err)
	if left := in.end.Sub(now); left < warnBefore && (cs.warnedAt.IsZero() || now.Sub(cs.warnedAt) >= warnEvery) {
		cs.warnedAt = now
		cs.log.WarnContext(ctx, "the certificate of this service ends soon", "file", cs.mesh.CertFile, "ends", in.end.UTC(), "days_left", int(left.Hours()/24))
	}
}

// tell logs a renewal that is not taken, at once and then once a minute.
func (cs *certificates) tell(ctx context.Context, now, end time.Time, err error) {
	if err == nil {
		cs.problem = ""
		return
	}
	if err.Error() == cs.problem && now.Sub(cs.toldAt) < tellEvery {
		return
	}
	cs.problem, cs.toldAt = err.Error(), now
	cs.log.ErrorContext(ctx, "the renewed certificate is not taken; the former one stays", "err", err, "former_ends", end.UTC())
}

// valid reports whether other services still accept the certificate.
func (cs *certificates) valid(context.Context) error {
	if end := cs.now.Load().end; cs.clock.Now().After(end) {
		return fmt.Errorf("GRPC_TLS_CERT: %s has expired on %s", cs.mesh.CertFile, end.UTC().Format(time.RFC3339))
	}
	return nil
}

// refuse tells, once a minute, of a client whose certificate is not accepted: it hears no
// more than that the connection broke (TLS 1.3 ends its own handshake first, RFC 8446
// section 4.4.2.4).
func (cs *certificates) refuse(from net.Addr, err error) {
	var bad *tls.CertificateVerificationError
	if !errors.As(err, &bad) {
		return // whoever it was, it showed no certificate
	}
	now := cs.clock.Now()
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if !cs.refused.IsZero() && now.Sub(cs.refused) < tellEvery {
		return
	}
	cs.refused = now
	var names []string
	if len(bad.UnverifiedCertificates) > 0 {
		names = bad.UnverifiedCertificates[0].DNSNames
	}
	cs.log.Error("the certificate of a caller is not accepted", "from", from.String(), "names", names, "err", bad.Err)
}

// serverCredentials are those of a listener; nil without mTLS. Callers are asked for a
// certificate, which is verified; users have none.
func (m Mesh) serverCredentials() (credentials.TransportCredentials, error) {
	return m.credentials(func(in *material) credentials.TransportCredentials { return in.server })
}

// clientCredentials are those of a connection; nil without mTLS.
func (m Mesh) clientCredentials() (credentials.TransportCredentials, error) {
	return m.credentials(func(in *material) credentials.TransportCredentials { return in.client })
}

func (m Mesh) credentials(side func(*material) credentials.TransportCredentials) (credentials.TransportCredentials, error) {
	switch {
	case m.certs != nil:
		return renewed{side(m.certs.now.Load()), func() credentials.TransportCredentials { return side(m.certs.now.Load()) }, m.certs.refuse}, nil
	case m.CertFile == "":
		return nil, nil
	}
	f, err := m.read()
	if err != nil {
		return nil, err
	}
	in, _, _, err := m.parse(f)
	if err != nil {
		return nil, err
	}
	return side(&in), nil
}

// renewed are credentials that make each handshake with the newest certificate.
// Connections that stand go on.
type renewed struct {
	credentials.TransportCredentials
	newest  func() credentials.TransportCredentials
	refused func(from net.Addr, err error) // told of handshakes that a server ended
}

// ClientHandshake implements credentials.TransportCredentials.
func (r renewed) ClientHandshake(ctx context.Context, authority string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return r.newest().ClientHandshake(ctx, authority, conn)
}

// ServerHandshake implements credentials.TransportCredentials.
func (r renewed) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	secure, info, err := r.newest().ServerHandshake(conn)
	if err != nil {
		r.refused(conn.RemoteAddr(), err)
	}
	return secure, info, err
}

// Clone implements credentials.TransportCredentials.
func (r renewed) Clone() credentials.TransportCredentials {
	return renewed{r.TransportCredentials.Clone(), r.newest, r.refused}
}
