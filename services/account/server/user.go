package server

import (
	"context"

	accountv1 "github.com/turumba/turumba/gen/turumba/account/v1"
	"github.com/turumba/turumba/kit/auth"
)

// GetMe implements accountv1.UserServiceServer.
func (s *Server) GetMe(ctx context.Context, _ *accountv1.GetMeRequest) (*accountv1.GetMeResponse, error) {
	userID, err := auth.From(ctx).Person()
	if err != nil {
		return nil, err
	}
	u, err := s.store.User(ctx, userID)
	if err != nil {
		return nil, err
	}
	return &accountv1.GetMeResponse{User: toProtoUser(u)}, nil
}
