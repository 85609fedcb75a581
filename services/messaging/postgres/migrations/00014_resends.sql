-- +goose Up
-- A send whose recipients are the failed messages of another one. The ids of those are
-- what the fan-out's cursor of addresses goes by.
ALTER TABLE group_messages
    ADD COLUMN resend_of_id    uuid,
    ADD COLUMN include_unknown boolean NOT NULL DEFAULT false;
CREATE INDEX group_messages_resend_of ON group_messages (account_id, resend_of_id) WHERE resend_of_id IS NOT NULL;
