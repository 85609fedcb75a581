-- +goose Up
-- Who began a registration, as a digest: those that wait for their codes are counted by it,
-- so that nobody fills the places of an address for others. Those of before are nobody's.
ALTER TABLE pending_registrations ADD COLUMN asker text NOT NULL DEFAULT '';
