// Package certtest makes authorities and certificates for tests of the mesh.
package certtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// CA is an authority.
type CA struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

// NewCA makes an authority that is good until end.
func NewCA(t testing.TB, end time.Time) *CA {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: serial(t), Subject: pkix.Name{CommonName: "test authority"}, NotBefore: end.AddDate(-10, 0, 0), NotAfter: end,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return &CA{cert: cert, key: key, pem: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
}

// PEM is the authority's certificate.
func (c *CA) PEM() []byte { return c.pem }

// Cert is a certificate to be made.
type Cert struct {
	// Names are its DNS names; the first is the service. 127.0.0.1 and localhost are
	// added.
	Names []string
	// Begin and End are its dates.
	Begin, End time.Time
	// Usages are what it is for; both sides of TLS when empty.
	Usages []x509.ExtKeyUsage
	// Nameless leaves out every name and address.
	Nameless bool
}

// Issue makes a certificate and its key.
func (c *CA) Issue(t testing.TB, want Cert) (cert, key []byte) {
	t.Helper()
	k := newKey(t)
	if want.Usages == nil {
		want.Usages = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	}
	template := &x509.Certificate{
		SerialNumber: serial(t), NotBefore: want.Begin, NotAfter: want.End, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: want.Usages,
	}
	if !want.Nameless {
		template.DNSNames = append(append([]string{}, want.Names...), "localhost")
		template.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, c.cert, &k.PublicKey, c.key)
	require.NoError(t, err)
	raw, err := x509.MarshalPKCS8PrivateKey(k)
	require.NoError(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw})
}

// Files are the paths of a certificate, its key and its authority.
type Files struct{ Cert, Key, CA string }

// Env are the settings that name them.
func (f Files) Env() []string {
	return []string{"GRPC_TLS_CERT=" + f.Cert, "GRPC_TLS_KEY=" + f.Key, "GRPC_TLS_CA=" + f.CA}
}

// Write issues a certificate and writes all three files into dir, over what is there.
func (c *CA) Write(t testing.TB, dir string, want Cert) Files {
	t.Helper()
	cert, key := c.Issue(t, want)
	f := Files{filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"), filepath.Join(dir, "ca.pem")}
	for path, content := range map[string][]byte{f.Cert: cert, f.Key: key, f.CA: c.pem} {
		require.NoError(t, os.WriteFile(path, content, 0o600))
	}
	return f
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	return key
}

func serial(t testing.TB) *big.Int {
	t.Helper()
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	require.NoError(t, err)
	return n
}
