-- +goose Up
-- While there is a row, nothing is handed to a provider: the claims and the gate read it.
-- since is set by a release that gives up what waited at that time, the moment of a backup:
-- its outcome is unknown, because it may have been sent after the backup was made.
CREATE TABLE sending_hold (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    reason   text NOT NULL,
    held_at  timestamptz NOT NULL,
    since    timestamptz
);
-- The sends of such a release whose recipients were not all written yet: their messages
-- get a later time than since.
CREATE TABLE sending_hold_sends (
    group_message_id uuid PRIMARY KEY
);
GRANT SELECT, INSERT, UPDATE, DELETE ON sending_hold, sending_hold_sends TO turumba_worker;
