-- +goose Up
-- A single message keeps its rendered text (a send keeps a snapshot for all of its).
ALTER TABLE messages
    ADD COLUMN subject    text,
    ADD COLUMN html_body  text,
    ADD COLUMN not_after  timestamptz;

-- A message was taken out of the chunk while it was in work: the gate looks.
ALTER TABLE dispatch_chunks ADD COLUMN withdrawn boolean NOT NULL DEFAULT false;

-- Messages that must not be sent later than a time; a queue table.
CREATE TABLE message_expiries (
    message_id uuid PRIMARY KEY,
    account_id uuid NOT NULL,
    expires_at timestamptz NOT NULL
);
CREATE INDEX message_expiries_due ON message_expiries (expires_at);
GRANT SELECT, INSERT, UPDATE, DELETE ON message_expiries TO turumba_worker;
GRANT INSERT ON message_expiries TO turumba_api;
