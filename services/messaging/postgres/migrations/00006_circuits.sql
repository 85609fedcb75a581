-- +goose Up
-- A channel that fails, or whose provider refuses it, waits until circuit_until; then one
-- chunk (circuit_probe) tries a message. throttle is a rate that the provider made us take.
ALTER TABLE channels
    ADD COLUMN circuit_until timestamptz,
    ADD COLUMN circuit_trips int NOT NULL DEFAULT 0,
    ADD COLUMN circuit_probe uuid,
    ADD COLUMN throttle      jsonb;
-- Channels that are broken already are tried like those that will be.
UPDATE channels SET circuit_until = now() WHERE status = 'error';

-- A message that named a type of channel may go on another one of it.
ALTER TABLE messages ADD COLUMN by_type boolean NOT NULL DEFAULT false;
ALTER TABLE dispatch_chunks ADD COLUMN by_type boolean NOT NULL DEFAULT false;
ALTER TABLE message_due ADD COLUMN by_type boolean NOT NULL DEFAULT false;
CREATE INDEX message_due_by_type ON message_due (channel_id) WHERE by_type;
