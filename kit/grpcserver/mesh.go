package grpcserver

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"

	"github.com/turumba/turumba/kit/config"
)

// Mesh is how the services prove themselves to each other over the network: a
// shared token, certificates (mTLS, whose first DNS name is the service), or
// both. Zero proves nobody.
type Mesh struct {
	ServiceToken config.Secret `env:"SERVICE_TOKEN" help:"secret shared by the services, 32 characters or more"`
	CertFile     string        `env:"GRPC_TLS_CERT" help:"PEM file of this service's certificate; with key and CA it turns mTLS on"`
	KeyFile      string        `env:"GRPC_TLS_KEY" help:"PEM file of the certificate's key"`
	CAFile       string        `env:"GRPC_TLS_CA" help:"PEM file of the authority that signs the services' certificates"`
}

// Validate reports a token that is too short and an incomplete set of files.
func (m Mesh) Validate() error {
	var problems []error
	if n := len(m.ServiceToken.Reveal()); n > 0 && n < MinServiceToken {
		problems = append(problems, fmt.Errorf("SERVICE_TOKEN has %d characters, want %d or more", n, MinServiceToken))
	}
	given := 0
	for _, f := range []string{m.CertFile, m.KeyFile, m.CAFile} {
		if f != "" {
			given++
		}
	}
	if given != 0 && given != 3 {
		problems = append(problems, errors.New("GRPC_TLS_CERT, GRPC_TLS_KEY and GRPC_TLS_CA are needed together"))
	}
	return errors.Join(problems...)
}

// serverTLS asks callers for a certificate and verifies it; users have none.
func (m Mesh) serverTLS() (*tls.Config, error) {
	cfg, pool, err := m.load()
	if cfg != nil {
		cfg.ClientCAs, cfg.ClientAuth = pool, tls.VerifyClientCertIfGiven
	}
	return cfg, err
}

func (m Mesh) clientTLS() (*tls.Config, error) {
	cfg, pool, err := m.load()
	if cfg != nil {
		cfg.RootCAs = pool
	}
	return cfg, err
}

func (m Mesh) load() (*tls.Config, *x509.CertPool, error) {
	if m.CertFile == "" {
		return nil, nil, nil
	}
	cert, err := tls.LoadX509KeyPair(m.CertFile, m.KeyFile)
	if err != nil {
		return nil, nil, fmt.Errorf("GRPC_TLS_CERT: %w", err)
	}
	pem, err := os.ReadFile(m.CAFile)
	if err != nil {
		return nil, nil, fmt.Errorf("GRPC_TLS_CA: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, nil, fmt.Errorf("GRPC_TLS_CA: %s holds no certificate", m.CAFile)
	}
	return &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13}, pool, nil
}
