-- +goose Up
-- Queue table: ids only, no tenant policy. Suppressions of before one normaliser read their
-- addresses, whose keys may be written otherwise now (decision G9): mailboxes that are not
-- in ASCII, numbers with a trunk 0 after their country, ids with blanks.
CREATE TABLE suppression_rekeys (
    suppression_id uuid PRIMARY KEY,
    account_id     uuid NOT NULL
);
GRANT SELECT, DELETE ON suppression_rekeys TO turumba_worker;
ALTER TABLE suppressions NO FORCE ROW LEVEL SECURITY; -- for the owner of the table, who reads it
INSERT INTO suppression_rekeys (suppression_id, account_id)
SELECT id, account_id FROM suppressions
WHERE address COLLATE "C" ~ '[^!-~]' OR (channel_type IN ('sms', 'smpp', 'whatsapp') AND address COLLATE "C" ~ '^[^+]|^\+[1-9][0-9]{0,2}0');
ALTER TABLE suppressions FORCE ROW LEVEL SECURITY;
