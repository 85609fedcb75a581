-- +goose Up
-- Whether something waits for a channel is asked before it is deleted.
GRANT SELECT (channel_id) ON message_due TO turumba_api;
CREATE INDEX message_due_channel ON message_due (channel_id);
DROP INDEX message_due_by_type;
CREATE INDEX group_messages_running ON group_messages (account_id, channel_id) WHERE status IN ('scheduled', 'queued', 'processing');
