package mongodb

import (
	"context"
	"slices"
	"strings"

	"go.mongodb.org/mongo-driver/v2/bson"

	errorv1 "github.com/turumba/turumba/gen/turumba/error/v1"
	"github.com/turumba/turumba/kit/apierr"
	"github.com/turumba/turumba/kit/mongodb"
	account "github.com/turumba/turumba/services/account"
)

// sweepSize is how much one sweep looks at.
const sweepSize = 1000

// Sweep settles what changes left open that ended in the middle: keys that nobody
// confirmed, and audit events of which nobody noted the outcome.
func (s *Store) Sweep(ctx context.Context) error {
	if err := s.sweepKeys(ctx); err != nil {
		return err
	}
	return s.sweepEvents(ctx)
}

func (s *Store) sweepKeys(ctx context.Context) error {
	over := s.db.Now().Add(-claimLife)
	open, err := s.keys.Owners(ctx, mongodb.Is("claimed_at", "$lt", over), sweepSize)
	if err != nil {
		return err
	}
	for _, o := range open {
		found, err := mongodb.Find[keyDocument](ctx, s.keys, []string{o.AccountID}, mongodb.Is("_id", "$eq", o.ID), mongodb.Page{Limit: 1})
		if err != nil {
			return err
		}
		if len(found) == 0 || found[0].ClaimedAt == nil || !found[0].ClaimedAt.Before(over) {
			continue // settled in between
		}
		if err := s.sweepKey(ctx, &found[0]); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) sweepKey(ctx context.Context, k *keyDocument) error {
	has, err := s.hasKey(ctx, k)
	if err != nil {
		return err
	}
	if has {
		_, err = s.keys.Update(ctx, []string{k.AccountID}, claimOf(k), mongodb.Set(bson.D{{Key: "claimed_at", Value: nil}, {Key: "claim", Value: ""}}))
		return err
	}
	_, err = s.keys.Delete(ctx, []string{k.AccountID}, claimOf(k))
	return err
}

func (s *Store) sweepEvents(ctx context.Context) error {
	events, err := s.journal.PendingEvents(ctx, s.db.Now().Add(-claimLife), sweepSize)
	if err != nil {
		return err
	}
	for _, e := range events {
		outcome, err := s.outcome(ctx, e)
		if err != nil {
			return err
		}
		if err := s.journal.Settle(ctx, e.AccountID, outcome, e.ID); err != nil {
			return err
		}
	}
	return nil
}

// outcome finds out what became of an intended change.
func (s *Store) outcome(ctx context.Context, e *account.AuditEvent) (account.AuditOutcome, error) {
	exists, trail, err := s.trailOf(ctx, e)
	if err != nil {
		return "", err
	}
	switch e.Action {
	case "contact.create", "contact_group.create", "contact.update", "contact_group.update":
		switch {
		case slices.Contains(trail, e.ID):
			return account.AuditSucceeded, nil
		case !exists && strings.HasSuffix(e.Action, ".update"), len(trail) == trailLength: // it may have been, before
			return account.AuditUnknown, nil
		}
		return account.AuditFailed, nil
	case "contact.delete", "contact_group.delete":
		if exists {
			return account.AuditFailed, nil
		}
		if e.ResourceType == "contact_group" {
			err = s.emptyGroup(ctx, e.AccountID, e.ResourceID)
		}
		return account.AuditSucceeded, err
	}
	return account.AuditUnknown, nil
}

// trailOf is whether the event's resource is there, and its last changes.
func (s *Store) trailOf(ctx context.Context, e *account.AuditEvent) (exists bool, trail []string, err error) {
	if e.ResourceType == "contact" {
		var d *contactDocument
		if d, err = s.contactDocument(ctx, []string{e.AccountID}, e.ResourceID); err == nil {
			return true, d.Fields.Trail, nil
		}
	} else {
		var d *groupDocument
		if d, err = s.groupDocument(ctx, []string{e.AccountID}, e.ResourceID); err == nil {
			return true, d.Trail, nil
		}
	}
	if apierr.HasReason(err, errorv1.Reason_REASON_NOT_FOUND) {
		err = nil
	}
	return false, nil, err
}
