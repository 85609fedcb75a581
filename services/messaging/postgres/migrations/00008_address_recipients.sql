-- +goose Up
-- Recipients of a send that are given by address. Their ids ascend in the order in
-- which they were given.
CREATE TABLE group_message_recipients (
    account_id       uuid NOT NULL,
    group_message_id uuid NOT NULL,
    id               uuid NOT NULL,
    address          text NOT NULL,
    name             text NOT NULL DEFAULT '',
    vars             jsonb,
    PRIMARY KEY (account_id, group_message_id, id)
);
ALTER TABLE group_message_recipients ENABLE ROW LEVEL SECURITY;
ALTER TABLE group_message_recipients FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON group_message_recipients USING (account_id = ANY (app_accounts()));
GRANT SELECT, INSERT, DELETE ON group_message_recipients TO turumba_api;
GRANT SELECT ON group_message_recipients TO turumba_worker;

ALTER TABLE group_messages
    ADD COLUMN exclude_contact_group_ids uuid[] NOT NULL DEFAULT '{}',
    ADD COLUMN address_count             int NOT NULL DEFAULT 0;

-- How far the fan-out is with them; they come before the contact groups.
ALTER TABLE fanout_jobs ADD COLUMN address_cursor uuid;

-- A skipped recipient is a contact or one of them: id is the id of either.
ALTER TABLE group_message_skips
    ADD COLUMN id               uuid,
    ADD COLUMN delivery_address text NOT NULL DEFAULT '';
UPDATE group_message_skips SET id = contact_id;
ALTER TABLE group_message_skips DROP CONSTRAINT group_message_skips_pkey;
ALTER TABLE group_message_skips ADD PRIMARY KEY (account_id, group_message_id, id);
ALTER TABLE group_message_skips ALTER COLUMN contact_id DROP NOT NULL;
CREATE INDEX group_message_skips_created_at ON group_message_skips (account_id, group_message_id, created_at, id);
CREATE INDEX group_message_skips_reason ON group_message_skips (account_id, group_message_id, reason, created_at, id);
CREATE INDEX group_message_skips_contact ON group_message_skips (account_id, group_message_id, contact_id);
