-- +goose Up
-- When what a row held of a person was erased; the row itself stays.
ALTER TABLE messages ADD COLUMN body_erased_at timestamptz;
ALTER TABLE group_messages ADD COLUMN body_erased_at timestamptz;
CREATE INDEX group_messages_kept ON group_messages (account_id, created_at, id) WHERE body_erased_at IS NULL;
CREATE INDEX group_message_skips_addressed ON group_message_skips (account_id) WHERE delivery_address <> '';

-- Erasures on demand: the proof of what was erased, when and by whom.
CREATE TABLE message_erasures (
    id                    uuid PRIMARY KEY,
    account_id            uuid NOT NULL,
    message_id            uuid,
    contact_id            uuid,
    delivery_address      text NOT NULL DEFAULT '',
    status                text NOT NULL CHECK (status IN ('running', 'completed')),
    erased_count          int NOT NULL DEFAULT 0,
    waiting_count         int NOT NULL DEFAULT 0,
    created_by_user_id    uuid,
    created_by_api_key_id uuid,
    created_at            timestamptz NOT NULL,
    completed_at          timestamptz
);
CREATE INDEX message_erasures_created_at ON message_erasures (account_id, created_at, id);
CREATE INDEX message_erasures_message ON message_erasures (account_id, message_id, created_at, id) WHERE message_id IS NOT NULL;
CREATE INDEX message_erasures_contact ON message_erasures (account_id, contact_id, created_at, id) WHERE contact_id IS NOT NULL;
ALTER TABLE message_erasures ENABLE ROW LEVEL SECURITY;
ALTER TABLE message_erasures FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON message_erasures USING (account_id = ANY (app_accounts()));
GRANT SELECT, INSERT ON message_erasures TO turumba_api;
GRANT SELECT, UPDATE ON message_erasures TO turumba_worker;

-- Queue tables: ids and times only, no tenant policy.
-- Erasures in work. position is the message to go on at, waits the first one found that
-- has not ended.
CREATE TABLE erasure_jobs (
    erasure_id uuid PRIMARY KEY,
    account_id uuid NOT NULL,
    position   uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000',
    waits      uuid,
    waiting    int NOT NULL DEFAULT 0,
    not_before timestamptz NOT NULL
);
CREATE INDEX erasure_jobs_due ON erasure_jobs (not_before);
-- How far the retention of an account is: with single messages, and in a send.
CREATE TABLE retention_progress (
    account_id    uuid PRIMARY KEY,
    position      uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000',
    send_id       uuid,
    send_position uuid
);
-- Single messages that the retention has passed before their time was over.
CREATE TABLE retention_waits (
    message_id uuid PRIMARY KEY,
    account_id uuid NOT NULL,
    look_at    timestamptz NOT NULL
);
CREATE INDEX retention_waits_due ON retention_waits (account_id, look_at);
GRANT INSERT ON erasure_jobs TO turumba_api;
GRANT SELECT, UPDATE, DELETE ON erasure_jobs TO turumba_worker;
GRANT SELECT, INSERT, UPDATE ON retention_progress TO turumba_worker;
GRANT SELECT, INSERT, UPDATE, DELETE ON retention_waits TO turumba_worker;

-- The addresses of a send go once each has its message or its place among the skipped.
GRANT DELETE ON group_message_recipients TO turumba_worker;
