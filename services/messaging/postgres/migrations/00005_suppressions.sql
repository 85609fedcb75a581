-- +goose Up
ALTER TABLE suppressions
    ADD COLUMN id                 uuid NOT NULL DEFAULT gen_random_uuid(),
    ADD COLUMN note               text NOT NULL DEFAULT '',
    ADD COLUMN created_by_user_id uuid,
    ADD CHECK (reason IN ('manual', 'unsubscribed', 'opted_out'));
ALTER TABLE suppressions ALTER COLUMN id DROP DEFAULT;
CREATE UNIQUE INDEX suppressions_id ON suppressions (account_id, id);
CREATE INDEX suppressions_created_at ON suppressions (account_id, created_at, id);
CREATE INDEX suppressions_address ON suppressions (account_id, address);
CREATE INDEX suppressions_type ON suppressions (account_id, channel_type, created_at, id);
