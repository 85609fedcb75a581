-- +goose Up
-- Each purpose has its part of the queue of mails, so that none crowds out the others.
ALTER TABLE outgoing_mails ADD COLUMN purpose text NOT NULL DEFAULT 'notice';
CREATE INDEX outgoing_mails_purpose ON outgoing_mails (purpose, not_before);

-- A code to reset a password stays good when another one is asked for, by whomever.
ALTER TABLE password_resets DROP CONSTRAINT password_resets_pkey, ADD PRIMARY KEY (user_id, code_hash);
