-- +goose Up
-- What a resend takes up; nothing said is what failed, as it always was.
ALTER TABLE group_messages ADD COLUMN resend_statuses text[] NOT NULL DEFAULT '{}';
