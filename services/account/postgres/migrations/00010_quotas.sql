-- +goose Up
-- Limits that operators gave to the account, by name; the others have the
-- installation's defaults.
ALTER TABLE accounts ADD COLUMN quotas jsonb NOT NULL DEFAULT '{}';

-- The contacts that are there already. Those in MongoDB are counted from now on.
INSERT INTO quota_usage (account_id, name, period, slot, used)
    SELECT account_id, 'contacts', '-infinity', 0, count(*) FROM contact_documents GROUP BY account_id;
