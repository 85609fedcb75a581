package server

import (
	"context"
	"crypto/rsa"
	"encoding/base64"
	"math/big"
	"net"
	"strings"

	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	accountv1 "github.com/turumba/turumba/gen/turumba/account/v1"
	account "github.com/turumba/turumba/services/account"
)

// confirmEmail is what follows a registration.
const confirmEmail = "confirm_email"

// Register implements accountv1.AuthServiceServer.
func (s *Server) Register(ctx context.Context, req *accountv1.RegisterRequest) (*accountv1.RegisterResponse, error) {
	resp := &accountv1.RegisterResponse{Next: confirmEmail}
	r := account.Registration{Email: req.GetEmail(), FullName: req.GetFullName(), AccountName: req.GetAccountName()}
	if err := s.identity.Register(ctx, r, req.GetPassword(), resp); err != nil {
		return nil, err
	}
	return resp, nil
}

// VerifyEmail implements accountv1.AuthServiceServer.
func (s *Server) VerifyEmail(ctx context.Context, req *accountv1.VerifyEmailRequest) (*accountv1.VerifyEmailResponse, error) {
	r, err := s.identity.Verify(ctx, req.GetEmail(), req.GetCode())
	if err != nil {
		return nil, err
	}
	return &accountv1.VerifyEmailResponse{UserId: r.UserID, AccountId: r.AccountID}, nil
}

// ResendVerification implements accountv1.AuthServiceServer.
func (s *Server) ResendVerification(ctx context.Context, req *accountv1.ResendVerificationRequest) (*accountv1.ResendVerificationResponse, error) {
	if err := s.identity.Resend(ctx, req.GetEmail()); err != nil {
		return nil, err
	}
	return &accountv1.ResendVerificationResponse{Next: confirmEmail}, nil
}

// Login implements accountv1.AuthServiceServer.
func (s *Server) Login(ctx context.Context, req *accountv1.LoginRequest) (*accountv1.LoginResponse, error) {
	t, err := s.identity.Login(ctx, req.GetEmail(), req.GetPassword(), remoteIP(ctx))
	if err != nil {
		return nil, err
	}
	return &accountv1.LoginResponse{AccessToken: t.Access, IdToken: t.ID, RefreshToken: t.Refresh, ExpiresIn: t.ExpiresIn, TokenType: "Bearer"}, nil
}

// Refresh implements accountv1.AuthServiceServer.
func (s *Server) Refresh(ctx context.Context, req *accountv1.RefreshRequest) (*accountv1.RefreshResponse, error) {
	t, err := s.identity.Refresh(ctx, req.GetRefreshToken())
	if err != nil {
		return nil, err
	}
	return &accountv1.RefreshResponse{AccessToken: t.Access, IdToken: t.ID, RefreshToken: t.Refresh, ExpiresIn: t.ExpiresIn, TokenType: "Bearer"}, nil
}

// Logout implements accountv1.AuthServiceServer.
func (s *Server) Logout(ctx context.Context, req *accountv1.LogoutRequest) (*accountv1.LogoutResponse, error) {
	if err := s.identity.Logout(ctx, req.GetRefreshToken()); err != nil {
		return nil, err
	}
	return &accountv1.LogoutResponse{}, nil
}

// GetJwks implements accountv1.AuthServiceServer.
func (s *Server) GetJwks(context.Context, *accountv1.GetJwksRequest) (*accountv1.GetJwksResponse, error) {
	resp := &accountv1.GetJwksResponse{}
	for _, k := range s.identity.Keys() {
		key, ok := k.Key.(*rsa.PublicKey)
		if !ok {
			continue
		}
		resp.Keys = append(resp.Keys, &accountv1.Jwk{
			Kty: "RSA", Use: k.Use, Alg: k.Algorithm, Kid: k.KeyID,
			N: base64.RawURLEncoding.EncodeToString(key.N.Bytes()),
			E: base64.RawURLEncoding.EncodeToString(big.NewInt(int64(key.E)).Bytes()),
		})
	}
	return resp, nil
}

// GetDiscovery implements accountv1.AuthServiceServer.
func (s *Server) GetDiscovery(context.Context, *accountv1.GetDiscoveryRequest) (*accountv1.GetDiscoveryResponse, error) {
	return &accountv1.GetDiscoveryResponse{
		Issuer: s.identity.Issuer, JwksUri: s.publicURL + "/.well-known/jwks.json", TokenEndpoint: s.publicURL + "/v1/auth/login",
		IdTokenSigningAlgValuesSupported: []string{"RS256"}, SubjectTypesSupported: []string{"public"}, ResponseTypesSupported: []string{"token"},
	}, nil
}

// remoteIP is the caller's address as the nearest hop saw it: the last one that
// the gateway noted, else the peer's own.
func remoteIP(ctx context.Context) string {
	md, _ := metadata.FromIncomingContext(ctx)
	if hops := md.Get("x-forwarded-for"); len(hops) > 0 {
		list := strings.Split(hops[len(hops)-1], ",")
		return strings.TrimSpace(list[len(list)-1])
	}
	p, ok := peer.FromContext(ctx)
	if !ok {
		return ""
	}
	host, _, err := net.SplitHostPort(p.Addr.String())
	if err != nil {
		return ""
	}
	return host
}
