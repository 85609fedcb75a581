package grpcserver

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/clock"
)

const (
	serviceHeader = "x-service-auth" // name.unixtime.hmac
	serviceWindow = 60 * time.Second
	// MinServiceToken is the fewest characters of a service token.
	MinServiceToken = 32
)

// metaIdentity is the fact of an error that says why a service's identity is refused,
// which is told from what an internal RPC answers about somebody else.
const metaIdentity = "service_identity"

type inprocServiceKey struct{}

// serviceOf proves which service calls: the in-process connection that it was
// given, its client certificate, or the shared service token.
func (s *Server) serviceOf(ctx context.Context, md metadata.MD) (string, error) {
	if name, ok := ctx.Value(inprocServiceKey{}).(string); ok && name != "" {
		return name, nil
	}
	if name := certificateName(ctx); name != "" {
		return name, nil
	}
	name, err := checkServiceToken(first(md, serviceHeader), s.cfg.Mesh.ServiceToken.Reveal(), s.cfg.Clock)
	if err != nil {
		return "", apierr.New(errorv1.Reason_REASON_UNAUTHENTICATED, "this RPC is for services of the mesh").WithMeta(metaIdentity, err.Error()).Wrap(err)
	}
	return name, nil
}

// certificateName is the first DNS name of a verified client certificate.
func certificateName(ctx context.Context) string {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return ""
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok || len(info.State.VerifiedChains) == 0 || len(info.State.PeerCertificates[0].DNSNames) == 0 {
		return ""
	}
	return info.State.PeerCertificates[0].DNSNames[0]
}

func serviceMAC(token, name, at string) string {
	mac := hmac.New(sha256.New, []byte(token))
	mac.Write([]byte(name + "." + at))
	return hex.EncodeToString(mac.Sum(nil))
}

func checkServiceToken(value, token string, c clock.Clock) (string, error) {
	parts := strings.Split(value, ".")
	if token == "" || len(parts) != 3 {
		return "", errors.New("no service identity: neither a SERVICE_TOKEN on both sides nor a certificate")
	}
	at, err := strconv.ParseInt(parts[1], 10, 64)
	if err != nil {
		return "", errors.New("malformed service identity")
	}
	if !hmac.Equal([]byte(parts[2]), []byte(serviceMAC(token, parts[0], parts[1]))) {
		return "", errors.New("the two services have different SERVICE_TOKENs")
	}
	if age := c.Now().Sub(time.Unix(at, 0)); age > serviceWindow || age < -serviceWindow {
		return "", fmt.Errorf("the clocks of the two services differ by %s", age.Abs().Round(time.Second))
	}
	return parts[0], nil
}

// serviceCredentials adds the service identity to each call of a client.
type serviceCredentials struct {
	name, token string
	clock       clock.Clock
}

// GetRequestMetadata implements credentials.PerRPCCredentials.
func (s serviceCredentials) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	at := strconv.FormatInt(s.clock.Now().Unix(), 10)
	return map[string]string{serviceHeader: s.name + "." + at + "." + serviceMAC(s.token, s.name, at)}, nil
}

// RequireTransportSecurity implements credentials.PerRPCCredentials: the token
// itself never travels.
func (s serviceCredentials) RequireTransportSecurity() bool { return false }
