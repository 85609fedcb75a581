package grpcserver

import (
	"errors"
	"fmt"

	"github.com/turumba/turumba/kit/config"
)

// Mesh is how the services prove themselves to each other over the network: a
// shared token, certificates (mTLS, whose first DNS name is the service), or
// both. Zero proves nobody, which only the single process may.
type Mesh struct {
	ServiceToken config.Secret `env:"SERVICE_TOKEN" help:"secret shared by the services, 32 characters or more"`
	CertFile     string        `env:"GRPC_TLS_CERT" help:"PEM file of this service's certificate; with key and CA it turns mTLS on"`
	KeyFile      string        `env:"GRPC_TLS_KEY" help:"PEM file of the certificate's key"`
	CAFile       string        `env:"GRPC_TLS_CA" help:"PEM file of the authority that signs the services' certificates"`

	certs *certificates // of a node; nil: the files are read once
}

// Validate reports settings by which no service can prove itself, a token that is too
// short and an incomplete set of files.
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
	if given == 0 && m.ServiceToken == "" {
		problems = append(problems, errNoProof)
	}
	return errors.Join(problems...)
}
