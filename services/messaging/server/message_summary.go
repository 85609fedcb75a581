package server

import (
	"context"
	"maps"
	"slices"
	"time"

	messagingv1 "github.com/turumba/turumba/gen/turumba/messaging/v1"
	"github.com/turumba/turumba/kit/auth"
	"github.com/turumba/turumba/services/messaging"
)

// contactsLimit is how long a read of messages waits for the names of contacts.
const contactsLimit = 2 * time.Second

// idSet is a set of ids.
type idSet map[string]bool

func (s idSet) add(id string) {
	if id != "" {
		s[id] = true
	}
}

func (s idSet) list() []string { return slices.Sorted(maps.Keys(s)) }

// references are what messages refer to and the caller may read: one set for each
// kind, so that a page of messages asks once for each.
type references struct {
	accounts, channels, templates, groups idSet
	contacts                              map[string]idSet // by account
}

func newReferences(caller auth.Caller, list []*messaging.Message) references {
	r := references{idSet{}, idSet{}, idSet{}, idSet{}, map[string]idSet{}}
	for _, m := range list {
		member, _ := caller.Membership(m.AccountID)
		r.accounts.add(m.AccountID)
		if member.Can("channels.read") {
			r.channels.add(m.ChannelID)
		}
		if member.Can("templates.read") {
			r.templates.add(m.TemplateID)
		}
		if member.Can("group_messages.read") {
			r.groups.add(m.GroupMessageID)
		}
		if member.Can("contacts.read") {
			r.contact(m)
		}
	}
	return r
}

func (r references) contact(m *messaging.Message) {
	if r.contacts[m.AccountID] == nil {
		r.contacts[m.AccountID] = idSet{}
	}
	r.contacts[m.AccountID].add(m.ContactID)
}

// toProtoMessages converts messages as they are read, with the names of what they
// refer to.
func (s *Server) toProtoMessages(ctx context.Context, list []*messaging.Message) ([]*messagingv1.Message, error) {
	out := mapAll(list, toProtoMessage)
	r := newReferences(auth.From(ctx), list)
	var names map[string]messaging.Summary
	if len(r.channels)+len(r.templates)+len(r.groups) > 0 {
		var err error
		names, err = s.store.Summaries(ctx, r.accounts.list(), r.channels.list(), r.templates.list(), r.groups.list())
		if err != nil {
			return nil, err
		}
	}
	contacts := s.contactNames(ctx, r)
	for _, m := range out {
		embed(m, names, contacts)
	}
	return out, nil
}

// contactNames asks for the contacts; without an answer messages are shown without
// their names.
func (s *Server) contactNames(ctx context.Context, r references) map[string]messaging.Recipient {
	ctx, cancel := context.WithTimeout(ctx, contactsLimit)
	defer cancel()
	all := map[string]messaging.Recipient{}
	for accountID, ids := range r.contacts {
		if len(ids) == 0 {
			continue
		}
		found, err := s.directory.Contacts(ctx, accountID, ids.list(), nil)
		if err != nil {
			return all
		}
		maps.Copy(all, found)
	}
	return all
}

func embed(m *messagingv1.Message, names map[string]messaging.Summary, contacts map[string]messaging.Recipient) {
	if v, ok := names[m.GetChannelId()]; ok {
		m.Channel = &messagingv1.ChannelSummary{Id: v.ID, Name: v.Name, ChannelType: fromWord[messagingv1.ChannelType](v.Detail)}
	}
	if v, ok := names[m.GetTemplateId()]; ok {
		m.Template = &messagingv1.TemplateSummary{Id: v.ID, Name: v.Name}
	}
	if v, ok := names[m.GetGroupMessageId()]; ok {
		m.GroupMessage = &messagingv1.GroupMessageSummary{Id: v.ID, Name: v.Name, Status: fromWord[messagingv1.GroupMessageStatus](v.Detail)}
	}
	if v, ok := contacts[m.GetContactId()]; ok {
		m.Contact = &messagingv1.ContactSummary{Id: v.ContactID, Name: v.Name, Email: v.Email, Phone: v.Phone}
	}
}
