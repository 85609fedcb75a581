package server

import (
	"context"
	"crypto/rsa"
	"encoding/base64"
	"math/big"
	"strings"
	"unicode"

	"google.golang.org/protobuf/proto"

	accountv1 "github.com/turumba/turumba/gen/turumba/account/v1"
	"github.com/turumba/turumba/kit/auth"
	account "github.com/turumba/turumba/services/account"
	"github.com/turumba/turumba/services/account/identity"
)

// bearer is the type of every token (RFC 6750).
const bearer = "Bearer"

// confirmEmail is what follows a registration.
const confirmEmail = "confirm_email"

// Register implements accountv1.AuthServiceServer. A repeated call with the same
// idempotency key answers the same token, which is kept sealed for as long.
func (s *Server) Register(ctx context.Context, req *accountv1.RegisterRequest) (*accountv1.RegisterResponse, error) {
	resp := &accountv1.RegisterResponse{Next: confirmEmail}
	invitation, err := s.registeringWith(ctx, req.GetInvitationToken(), req.GetEmail())
	if err != nil {
		return nil, err
	}
	r := account.Registration{Email: req.GetEmail(), FullName: req.GetFullName(), AccountName: req.GetAccountName(), InvitationHash: invitation}
	err = s.identity.Register(ctx, r, req.GetPassword(), func(token string) proto.Message {
		resp.RegistrationToken = token
		return resp
	})
	if err != nil {
		return nil, err
	}
	return resp, nil
}

// VerifyEmail implements accountv1.AuthServiceServer.
func (s *Server) VerifyEmail(ctx context.Context, req *accountv1.VerifyEmailRequest) (*accountv1.VerifyEmailResponse, error) {
	r, err := s.identity.Verify(ctx, req.GetEmail(), typed(req.GetCode()), req.GetRegistrationToken())
	if err != nil {
		return nil, err
	}
	return &accountv1.VerifyEmailResponse{UserId: r.UserID, AccountId: r.AccountID}, nil
}

// ResendVerification implements accountv1.AuthServiceServer.
func (s *Server) ResendVerification(ctx context.Context, req *accountv1.ResendVerificationRequest) (*accountv1.ResendVerificationResponse, error) {
	if err := s.identity.Resend(ctx, req.GetEmail(), req.GetRegistrationToken()); err != nil {
		return nil, err
	}
	return &accountv1.ResendVerificationResponse{Next: confirmEmail}, nil
}

// Login implements accountv1.AuthServiceServer.
func (s *Server) Login(ctx context.Context, req *accountv1.LoginRequest) (*accountv1.LoginResponse, error) {
	t, err := s.identity.Login(ctx, req.GetEmail(), req.GetPassword())
	if err != nil {
		return nil, err
	}
	if t.Session != "" {
		return &accountv1.LoginResponse{Challenge: identity.Challenge, Session: t.Session}, nil
	}
	device, err := s.devices.Give(identity.AskerFrom(ctx), t.Address)
	if err != nil {
		return nil, err
	}
	return &accountv1.LoginResponse{AccessToken: t.Access, IdToken: t.ID, RefreshToken: t.Refresh, ExpiresIn: t.ExpiresIn, TokenType: bearer, DeviceToken: device}, nil
}

// Refresh implements accountv1.AuthServiceServer.
func (s *Server) Refresh(ctx context.Context, req *accountv1.RefreshRequest) (*accountv1.RefreshResponse, error) {
	t, err := s.identity.Refresh(ctx, req.GetRefreshToken())
	if err != nil {
		return nil, err
	}
	return &accountv1.RefreshResponse{AccessToken: t.Access, IdToken: t.ID, RefreshToken: t.Refresh, ExpiresIn: t.ExpiresIn, TokenType: bearer}, nil
}

// Logout implements accountv1.AuthServiceServer.
func (s *Server) Logout(ctx context.Context, req *accountv1.LogoutRequest) (*accountv1.LogoutResponse, error) {
	if err := s.identity.Logout(ctx, req.GetRefreshToken()); err != nil {
		return nil, err
	}
	return &accountv1.LogoutResponse{}, nil
}

// AnswerChallenge implements accountv1.AuthServiceServer.
func (s *Server) AnswerChallenge(ctx context.Context, req *accountv1.AnswerChallengeRequest) (*accountv1.AnswerChallengeResponse, error) {
	t, err := s.identity.Answer(ctx, req.GetSession(), factor(req.GetCode()))
	if err != nil {
		return nil, err
	}
	device, err := s.devices.Give(identity.AskerFrom(ctx), t.Address)
	if err != nil {
		return nil, err
	}
	return &accountv1.AnswerChallengeResponse{AccessToken: t.Access, IdToken: t.ID, RefreshToken: t.Refresh, ExpiresIn: t.ExpiresIn, TokenType: bearer, DeviceToken: device}, nil
}

// LogoutEverywhere implements accountv1.AuthServiceServer.
func (s *Server) LogoutEverywhere(ctx context.Context, _ *accountv1.LogoutEverywhereRequest) (*accountv1.LogoutEverywhereResponse, error) {
	userID, err := auth.From(ctx).Person()
	if err != nil {
		return nil, err
	}
	if err := s.identity.LogoutEverywhere(ctx, userID); err != nil {
		return nil, err
	}
	return &accountv1.LogoutEverywhereResponse{}, nil
}

// ForgotPassword implements accountv1.AuthServiceServer.
func (s *Server) ForgotPassword(ctx context.Context, req *accountv1.ForgotPasswordRequest) (*accountv1.ForgotPasswordResponse, error) {
	if err := s.identity.Forgot(ctx, req.GetEmail()); err != nil {
		return nil, err
	}
	return &accountv1.ForgotPasswordResponse{Next: "reset_password"}, nil
}

// ResetPassword implements accountv1.AuthServiceServer.
func (s *Server) ResetPassword(ctx context.Context, req *accountv1.ResetPasswordRequest) (*accountv1.ResetPasswordResponse, error) {
	if err := s.identity.Reset(ctx, req.GetEmail(), withoutBlanks(req.GetCode()), req.GetNewPassword()); err != nil {
		return nil, err
	}
	return &accountv1.ResetPasswordResponse{Next: "login"}, nil
}

// ChangePassword implements accountv1.AuthServiceServer.
func (s *Server) ChangePassword(ctx context.Context, req *accountv1.ChangePasswordRequest) (*accountv1.ChangePasswordResponse, error) {
	caller := auth.From(ctx)
	userID, err := caller.Person()
	if err != nil {
		return nil, err
	}
	if err := s.identity.Change(ctx, userID, caller.SessionID, req.GetCurrentPassword(), req.GetNewPassword()); err != nil {
		return nil, err
	}
	return &accountv1.ChangePasswordResponse{}, nil
}

// SetupTotp implements accountv1.AuthServiceServer.
func (s *Server) SetupTotp(ctx context.Context, req *accountv1.SetupTotpRequest) (*accountv1.SetupTotpResponse, error) {
	userID, err := auth.From(ctx).Person()
	if err != nil {
		return nil, err
	}
	secret, uri, err := s.identity.SetupTotp(ctx, userID, req.GetPassword())
	if err != nil {
		return nil, err
	}
	return &accountv1.SetupTotpResponse{Secret: secret, OtpauthUri: uri}, nil
}

// VerifyTotp implements accountv1.AuthServiceServer.
func (s *Server) VerifyTotp(ctx context.Context, req *accountv1.VerifyTotpRequest) (*accountv1.VerifyTotpResponse, error) {
	userID, err := auth.From(ctx).Person()
	if err != nil {
		return nil, err
	}
	codes, err := s.identity.VerifyTotp(ctx, userID, typed(req.GetCode()))
	if err != nil {
		return nil, err
	}
	return &accountv1.VerifyTotpResponse{RecoveryCodes: codes}, nil
}

// DisableTotp implements accountv1.AuthServiceServer.
func (s *Server) DisableTotp(ctx context.Context, req *accountv1.DisableTotpRequest) (*accountv1.DisableTotpResponse, error) {
	userID, err := auth.From(ctx).Person()
	if err != nil {
		return nil, err
	}
	if err := s.identity.DisableTotp(ctx, userID, factor(req.GetCode())); err != nil {
		return nil, err
	}
	return &accountv1.DisableTotpResponse{}, nil
}

// RenewRecoveryCodes implements accountv1.AuthServiceServer.
func (s *Server) RenewRecoveryCodes(ctx context.Context, req *accountv1.RenewRecoveryCodesRequest) (*accountv1.RenewRecoveryCodesResponse, error) {
	userID, err := auth.From(ctx).Person()
	if err != nil {
		return nil, err
	}
	codes, err := s.identity.RenewRecoveryCodes(ctx, userID, typed(req.GetCode()))
	if err != nil {
		return nil, err
	}
	return &accountv1.RenewRecoveryCodesResponse{RecoveryCodes: codes}, nil
}

// IssueToken implements accountv1.AuthServiceServer.
func (s *Server) IssueToken(ctx context.Context, req *accountv1.IssueTokenRequest) (*accountv1.IssueTokenResponse, error) {
	t, err := s.keys.IssueKeyToken(ctx, req.GetClientId(), req.GetClientSecret())
	if err != nil {
		return nil, err
	}
	return &accountv1.IssueTokenResponse{AccessToken: t.Access, TokenType: bearer, ExpiresIn: t.ExpiresIn}, nil
}

// GetJwks implements accountv1.AuthServiceServer.
func (s *Server) GetJwks(context.Context, *accountv1.GetJwksRequest) (*accountv1.GetJwksResponse, error) {
	resp := &accountv1.GetJwksResponse{}
	for _, k := range s.keys.Public() {
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
		Issuer: s.keys.Issuer, JwksUri: s.publicURL + "/.well-known/jwks.json", TokenEndpoint: s.publicURL + "/v1/auth/token",
		IdTokenSigningAlgValuesSupported: []string{"RS256"}, SubjectTypesSupported: []string{"public"}, ResponseTypesSupported: []string{"token"},
	}, nil
}

// withoutBlanks is a code as it was made: people copy them with blanks around and between.
func withoutBlanks(code string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) {
			return -1
		}
		return r
	}, code)
}

// typed is a code of digits, which people also group with hyphens.
func typed(code string) string { return strings.ReplaceAll(withoutBlanks(code), "-", "") }

// factor is a code of an authenticator, or a recovery code.
func factor(code string) string {
	if digits := typed(code); len(digits) == 6 && strings.Trim(digits, "0123456789") == "" {
		return digits
	}
	return withoutBlanks(code)
}
