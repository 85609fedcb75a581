-- +goose Up
-- Queue table: ids only, no tenant policy. Contacts of before one normaliser read their
-- addresses, whose keys may be written otherwise now (decision G9).
CREATE TABLE contact_rekeys (
    contact_id uuid PRIMARY KEY,
    account_id uuid NOT NULL
);
GRANT SELECT, DELETE ON contact_rekeys TO turumba_api;
INSERT INTO contact_rekeys (contact_id, account_id)
SELECT id, account_id FROM contact_documents
WHERE concat_ws('', doc ->> 'email', doc -> 'identifiers' ->> 'telegram', doc -> 'identifiers' ->> 'whatsapp', doc -> 'identifiers' ->> 'messenger') COLLATE "C" ~ '[^!-~]';

-- Contacts that are the same person's as another. The planner takes ? for rare.
CREATE INDEX contacts_duplicates ON contact_documents (account_id, id) WHERE doc ? 'duplicate_of_id';
