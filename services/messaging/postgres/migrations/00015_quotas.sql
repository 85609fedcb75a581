-- +goose Up
-- What a send was charged of the day's messages when it was accepted, and when; NULL
-- where the account had no limit.
ALTER TABLE group_messages
    ADD COLUMN charged_count int NOT NULL DEFAULT 0,
    ADD COLUMN charged_at    timestamptz;
