package server

import (
	"context"
	"strings"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	messagingv1 "github.com/turumba/turumba/gen/turumba/messaging/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/auth"
	"github.com/turumba/turumba/kit/pg"
	"github.com/turumba/turumba/kit/query"
	"github.com/turumba/turumba/services/messaging"
	"github.com/turumba/turumba/services/messaging/channel"
)

// CreateChannel implements messagingv1.ChannelServiceServer.
func (s *Server) CreateChannel(ctx context.Context, req *messagingv1.CreateChannelRequest) (*messagingv1.CreateChannelResponse, error) {
	accountID, err := auth.ScopeFrom(ctx).Target(req.GetAccountId(), auth.From(ctx))
	if err != nil {
		return nil, err
	}
	c, err := s.newChannel(req, accountID)
	if err != nil {
		return nil, err
	}
	resp := &messagingv1.CreateChannelResponse{}
	err = s.store.DB().InTx(ctx, []string{accountID}, func(tx *pg.Tx) error {
		if err := tx.Idempotent(ctx, accountID); err != nil {
			return err
		}
		if err := s.store.CreateChannel(ctx, tx, c, quotasOf(ctx, accountID)); err != nil {
			return err
		}
		resp.Channel = s.toProtoChannel(c)
		return tx.Respond(ctx, resp)
	})
	if err != nil {
		return nil, err
	}
	return resp, nil
}

// newChannel makes a channel of a request, with its defaults.
func (s *Server) newChannel(req *messagingv1.CreateChannelRequest, accountID string) (*messaging.Channel, error) {
	c := &messaging.Channel{
		ID: messaging.NewID(), AccountID: accountID, Name: req.GetName(), Status: messaging.ChannelDisconnected, IsEnabled: true,
		SenderName: req.GetSenderName(), DefaultCountryCode: req.GetDefaultCountryCode(), RateLimit: req.RateLimit, Priority: req.GetPriority(),
		RetryCount: or(req.RetryCount, messaging.DefaultRetryCount), RetryInterval: or(req.RetryInterval, messaging.DefaultRetryInterval),
		Connections: or(req.Connections, messaging.DefaultConnections), OnUnknown: unknownWord(req.GetOnUnknown()),
		Secrets: map[string]messaging.Secret{}, Sealed: map[string][]byte{},
	}
	setKind(c, req.GetCredentials())
	if err := s.changeCredentials(c, req.GetCredentials(), "credentials"); err != nil {
		return nil, err
	}
	return c, s.checkCredentials(c)
}

func or(v *int32, fallback int32) int32 {
	if v == nil {
		return fallback
	}
	return *v
}

func unknownWord(v messagingv1.UnknownOutcome) string {
	if v == 0 {
		return messaging.UnknownHold
	}
	return toWord(v)
}

// GetChannel implements messagingv1.ChannelServiceServer.
func (s *Server) GetChannel(ctx context.Context, req *messagingv1.GetChannelRequest) (*messagingv1.GetChannelResponse, error) {
	c, err := s.store.Channel(ctx, auth.ScopeFrom(ctx), req.GetChannelId())
	if err != nil {
		return nil, err
	}
	return &messagingv1.GetChannelResponse{Channel: s.toProtoChannel(c)}, nil
}

// ListChannels implements messagingv1.ChannelServiceServer.
func (s *Server) ListChannels(ctx context.Context, req *messagingv1.ListChannelsRequest) (*messagingv1.ListChannelsResponse, error) {
	page, err := s.store.Channels(ctx, auth.ScopeFrom(ctx), query.RequestOf(req))
	if err != nil {
		return nil, err
	}
	return &messagingv1.ListChannelsResponse{Data: mapAll(page.Data, s.toProtoChannel), Meta: page.Meta}, nil
}

// UpdateChannel implements messagingv1.ChannelServiceServer.
func (s *Server) UpdateChannel(ctx context.Context, req *messagingv1.UpdateChannelRequest) (*messagingv1.UpdateChannelResponse, error) {
	c, err := s.store.UpdateChannel(ctx, auth.ScopeFrom(ctx), req.GetChannelId(), func(c *messaging.Channel) error {
		var credentials []string
		for _, path := range req.GetUpdateMask().GetPaths() {
			if path == "credentials" || strings.HasPrefix(path, "credentials.") {
				credentials = append(credentials, path)
				continue
			}
			applyChannel(c, req.GetChannel(), path)
		}
		if credentials == nil {
			return nil
		}
		// What was wrong may be mended: the next send or verification tells.
		c.Mend()
		c.Status, c.LastVerifiedAt = messaging.ChannelDisconnected, nil
		if err := s.changeCredentials(c, req.GetChannel().GetCredentials(), credentials...); err != nil {
			return err
		}
		return s.checkCredentials(c)
	})
	if err != nil {
		return nil, err
	}
	return &messagingv1.UpdateChannelResponse{Channel: s.toProtoChannel(c)}, nil
}

// changeCredentials sets what all the paths together name: the secrets among them are
// sealed for the destination that comes out.
func (s *Server) changeCredentials(c *messaging.Channel, in *messagingv1.ChannelCredentials, paths ...string) error {
	return c.ChangeCredentials(s.vault, s.clock.Now().UTC(), func(to *messaging.Credentials) (map[string]string, error) {
		return applyCredentials(to, c.Provider, in, paths...)
	})
}

func applyChannel(c *messaging.Channel, u *messagingv1.ChannelUpdate, path string) {
	switch path {
	case "name":
		c.Name = u.GetName()
	case "sender_name":
		c.SenderName = u.GetSenderName()
	case "default_country_code":
		c.DefaultCountryCode = u.GetDefaultCountryCode()
	case "rate_limit":
		c.RateLimit = u.RateLimit
	case "priority":
		c.Priority = u.GetPriority()
	case "retry_count":
		c.RetryCount = or(u.RetryCount, messaging.DefaultRetryCount)
	case "retry_interval":
		c.RetryInterval = or(u.RetryInterval, messaging.DefaultRetryInterval)
	case "connections":
		c.Connections = or(u.Connections, messaging.DefaultConnections)
	case "on_unknown":
		c.OnUnknown = unknownWord(u.GetOnUnknown())
	case "is_enabled":
		switchTo(c, u.GetIsEnabled())
	}
}

// DeleteChannel implements messagingv1.ChannelServiceServer.
func (s *Server) DeleteChannel(ctx context.Context, req *messagingv1.DeleteChannelRequest) (*messagingv1.DeleteChannelResponse, error) {
	if err := s.store.DeleteChannel(ctx, auth.ScopeFrom(ctx), req.GetChannelId(), req.GetForce()); err != nil {
		return nil, err
	}
	return &messagingv1.DeleteChannelResponse{}, nil
}

// VerifyChannel implements messagingv1.ChannelServiceServer.
func (s *Server) VerifyChannel(ctx context.Context, req *messagingv1.VerifyChannelRequest) (*messagingv1.VerifyChannelResponse, error) {
	c, err := s.store.Channel(ctx, auth.ScopeFrom(ctx), req.GetChannelId())
	if err != nil {
		return nil, err
	}
	if c, err = s.store.BindSecrets(ctx, s.vault, c); err != nil {
		return nil, err
	}
	res, err := s.verify(ctx, c)
	if err != nil {
		return nil, err
	}
	seen := c.SendEpoch
	c, err = s.store.UpdateChannel(ctx, auth.ScopeFrom(ctx), c.ID, func(c *messaging.Channel) error {
		if c.SendEpoch != seen {
			return apierr.New(errorv1.Reason_REASON_CONFLICT, "the channel was changed while it was being verified")
		}
		s.noteVerification(c, res)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if res.Class != channel.ClassOK {
		return nil, apierr.New(errorv1.Reason_REASON_CHANNEL_VERIFICATION_FAILED, "%s", res.Text)
	}
	return &messagingv1.VerifyChannelResponse{Channel: s.toProtoChannel(c)}, nil
}

func (s *Server) verify(ctx context.Context, c *messaging.Channel) (channel.Result, error) {
	sender, err := s.open(c)
	if err != nil {
		return channel.Result{}, err
	}
	v, ok := sender.(channel.Verifier)
	if !ok {
		return channel.Result{Outcome: channel.Accepted, Class: channel.ClassOK}, sender.Close()
	}
	res := v.Verify(ctx)
	return res, sender.Close()
}

func (s *Server) noteVerification(c *messaging.Channel, res channel.Result) {
	switch res.Class {
	case channel.ClassOK:
		now := s.clock.Now().UTC()
		c.Mend()
		c.Status, c.LastVerifiedAt = messaging.ChannelConnected, &now
	case channel.ClassConfig, channel.ClassBilling:
		c.Break(s.clock.Now().UTC(), true, res.Text)
	default:
		if c.Status != messaging.ChannelError { // what the provider refused is not mended by being away
			c.Status, c.ErrorMessage = messaging.ChannelDisconnected, res.Text
		}
	}
}

// EnableChannel implements messagingv1.ChannelServiceServer.
func (s *Server) EnableChannel(ctx context.Context, req *messagingv1.EnableChannelRequest) (*messagingv1.EnableChannelResponse, error) {
	c, err := s.switchChannel(ctx, req.GetChannelId(), true)
	if err != nil {
		return nil, err
	}
	return &messagingv1.EnableChannelResponse{Channel: s.toProtoChannel(c)}, nil
}

// DisableChannel implements messagingv1.ChannelServiceServer.
func (s *Server) DisableChannel(ctx context.Context, req *messagingv1.DisableChannelRequest) (*messagingv1.DisableChannelResponse, error) {
	c, err := s.switchChannel(ctx, req.GetChannelId(), false)
	if err != nil {
		return nil, err
	}
	return &messagingv1.DisableChannelResponse{Channel: s.toProtoChannel(c)}, nil
}

func (s *Server) switchChannel(ctx context.Context, id string, on bool) (*messaging.Channel, error) {
	return s.store.UpdateChannel(ctx, auth.ScopeFrom(ctx), id, func(c *messaging.Channel) error {
		switchTo(c, on)
		return nil
	})
}

// switchTo also forgets an error or a pause when a channel is enabled: its owner says
// that it may try again.
func switchTo(c *messaging.Channel, on bool) {
	if c.IsEnabled = on; on {
		c.Mend()
	}
}
