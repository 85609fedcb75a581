package server

import (
	"context"

	"google.golang.org/protobuf/proto"

	accountv1 "github.com/turumba/turumba/gen/turumba/account/v1"
	"github.com/turumba/turumba/kit/auth"
	"github.com/turumba/turumba/kit/query"
	account "github.com/turumba/turumba/services/account"
)

// CreateContactGroup implements accountv1.ContactGroupServiceServer.
func (s *Server) CreateContactGroup(ctx context.Context, req *accountv1.CreateContactGroupRequest) (*accountv1.CreateContactGroupResponse, error) {
	accountID, err := auth.ScopeFrom(ctx).Target(req.GetAccountId(), auth.From(ctx))
	if err != nil {
		return nil, err
	}
	g := &account.Group{AccountID: accountID, Name: req.GetName(), Description: req.GetDescription()}
	resp := &accountv1.CreateContactGroupResponse{}
	err = s.contacts.CreateGroup(ctx, g, func() proto.Message {
		resp.ContactGroup = toProtoGroup(g)
		return resp
	})
	if err != nil {
		return nil, err
	}
	return resp, nil
}

// GetContactGroup implements accountv1.ContactGroupServiceServer.
func (s *Server) GetContactGroup(ctx context.Context, req *accountv1.GetContactGroupRequest) (*accountv1.GetContactGroupResponse, error) {
	g, err := s.contacts.Group(ctx, auth.ScopeFrom(ctx), req.GetContactGroupId())
	if err != nil {
		return nil, err
	}
	return &accountv1.GetContactGroupResponse{ContactGroup: toProtoGroup(g)}, nil
}

// ListContactGroups implements accountv1.ContactGroupServiceServer.
func (s *Server) ListContactGroups(ctx context.Context, req *accountv1.ListContactGroupsRequest) (*accountv1.ListContactGroupsResponse, error) {
	page, err := s.contacts.Groups(ctx, auth.ScopeFrom(ctx), query.RequestOf(req))
	if err != nil {
		return nil, err
	}
	return &accountv1.ListContactGroupsResponse{Data: mapAll(page.Data, toProtoGroup), Meta: page.Meta}, nil
}

// UpdateContactGroup implements accountv1.ContactGroupServiceServer.
func (s *Server) UpdateContactGroup(ctx context.Context, req *accountv1.UpdateContactGroupRequest) (*accountv1.UpdateContactGroupResponse, error) {
	g, err := s.contacts.UpdateGroup(ctx, auth.ScopeFrom(ctx), req.GetContactGroupId(), func(g *account.Group) {
		for _, path := range req.GetUpdateMask().GetPaths() {
			switch path {
			case "name":
				g.Name = req.GetContactGroup().GetName()
			case "description":
				g.Description = req.GetContactGroup().GetDescription()
			}
		}
	})
	if err != nil {
		return nil, err
	}
	return &accountv1.UpdateContactGroupResponse{ContactGroup: toProtoGroup(g)}, nil
}

// DeleteContactGroup implements accountv1.ContactGroupServiceServer.
func (s *Server) DeleteContactGroup(ctx context.Context, req *accountv1.DeleteContactGroupRequest) (*accountv1.DeleteContactGroupResponse, error) {
	if err := s.contacts.DeleteGroup(ctx, auth.ScopeFrom(ctx), req.GetContactGroupId()); err != nil {
		return nil, err
	}
	return &accountv1.DeleteContactGroupResponse{}, nil
}

// AddContacts implements accountv1.ContactGroupServiceServer.
func (s *Server) AddContacts(ctx context.Context, req *accountv1.AddContactsRequest) (*accountv1.AddContactsResponse, error) {
	added, err := s.contacts.AddContacts(ctx, auth.ScopeFrom(ctx), req.GetContactGroupId(), req.GetContactIds())
	if err != nil {
		return nil, err
	}
	return &accountv1.AddContactsResponse{Added: added}, nil
}

// RemoveContact implements accountv1.ContactGroupServiceServer.
func (s *Server) RemoveContact(ctx context.Context, req *accountv1.RemoveContactRequest) (*accountv1.RemoveContactResponse, error) {
	if err := s.contacts.RemoveContact(ctx, auth.ScopeFrom(ctx), req.GetContactGroupId(), req.GetContactId()); err != nil {
		return nil, err
	}
	return &accountv1.RemoveContactResponse{}, nil
}

// ListGroupContacts implements accountv1.ContactGroupServiceServer.
func (s *Server) ListGroupContacts(ctx context.Context, req *accountv1.ListGroupContactsRequest) (*accountv1.ListGroupContactsResponse, error) {
	page, err := s.contacts.GroupContacts(ctx, auth.ScopeFrom(ctx), req.GetContactGroupId(), query.RequestOf(req))
	if err != nil {
		return nil, err
	}
	return &accountv1.ListGroupContactsResponse{Data: mapAll(page.Data, toProtoContact), Meta: page.Meta}, nil
}
