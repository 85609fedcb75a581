-- +goose Up
-- The name that people see is stored, so that lists search and sort by it.
UPDATE contact_documents SET doc = doc || jsonb_build_object('display',
    coalesce(nullif(doc ->> 'name', ''), trim(concat_ws(' ', doc ->> 'first_name', doc ->> 'last_name'))))
    WHERE NOT doc ? 'display';

CREATE UNIQUE INDEX contacts_external_key ON contact_documents (account_id, (doc ->> 'external_id')) WHERE doc ->> 'external_id' IS NOT NULL;
CREATE UNIQUE INDEX contacts_telegram_key ON contact_documents (account_id, (doc -> 'identifiers' ->> 'telegram')) WHERE doc -> 'identifiers' ->> 'telegram' IS NOT NULL;
CREATE UNIQUE INDEX contacts_whatsapp_key ON contact_documents (account_id, (doc -> 'identifiers' ->> 'whatsapp')) WHERE doc -> 'identifiers' ->> 'whatsapp' IS NOT NULL;
CREATE UNIQUE INDEX contacts_messenger_key ON contact_documents (account_id, (doc -> 'identifiers' ->> 'messenger')) WHERE doc -> 'identifiers' ->> 'messenger' IS NOT NULL;

-- One order per sortable field, and one inverted index with the account in it for
-- everything that is searched inside: without the account, a search would read the
-- hits of all tenants.
DROP INDEX contacts_name;
DROP INDEX contacts_doc;
DROP INDEX contacts_name_trgm;
DROP INDEX contacts_email_trgm;
-- Without WHERE they also find who has none; NULLs are no duplicates.
DROP INDEX contacts_phone_key;
CREATE UNIQUE INDEX contacts_phone_key ON contact_documents (account_id, (doc ->> 'phone'));
CREATE INDEX contacts_updated_at ON contact_documents (account_id, updated_at, id);
CREATE INDEX contacts_display ON contact_documents (account_id, (doc ->> 'display'), id);
CREATE INDEX contacts_email ON contact_documents (account_id, (doc ->> 'email'), id);
CREATE INDEX contacts_search ON contact_documents USING gin (account_id,
    (doc ->> 'display') gin_trgm_ops, (doc ->> 'first_name') gin_trgm_ops, (doc ->> 'last_name') gin_trgm_ops,
    (doc ->> 'email') gin_trgm_ops, (doc ->> 'phone') gin_trgm_ops,
    (doc -> 'tags') jsonb_path_ops, (doc -> 'metadata') jsonb_path_ops);
