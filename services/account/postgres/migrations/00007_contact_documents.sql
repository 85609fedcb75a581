-- +goose Up
-- Contacts may be documents in MongoDB, which has no part in a transaction here: what
-- is about to be done is written first, and what became of it after.
ALTER TABLE audit_events ADD COLUMN outcome text NOT NULL DEFAULT 'succeeded' CHECK (outcome IN ('succeeded', 'pending', 'failed', 'unknown'));
CREATE INDEX audit_events_pending ON audit_events (created_at) WHERE outcome = 'pending';
GRANT UPDATE (outcome, changes) ON audit_events TO turumba_api;
CREATE POLICY settle ON audit_events AS RESTRICTIVE FOR UPDATE TO turumba_api USING (outcome = 'pending') WITH CHECK (true);

CREATE FUNCTION lookup.audit_pending(older_than timestamptz, most int) RETURNS TABLE (id uuid, account_id uuid) LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp
    AS 'SELECT id, account_id FROM audit_events WHERE outcome = ''pending'' AND created_at < older_than ORDER BY created_at LIMIT most';
REVOKE ALL ON FUNCTION lookup.audit_pending(timestamptz, int) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION lookup.audit_pending(timestamptz, int) TO turumba_api;

-- What a batch of an import is about to store in MongoDB. Whoever takes the import over
-- does it again, which changes nothing that was done.
CREATE TABLE contact_import_plans (
    import_id  uuid PRIMARY KEY,
    account_id uuid NOT NULL,
    plan       jsonb NOT NULL,
    created_at timestamptz NOT NULL,
    FOREIGN KEY (account_id, import_id) REFERENCES contact_imports (account_id, id) ON DELETE CASCADE
);
ALTER TABLE contact_import_plans ENABLE ROW LEVEL SECURITY;
ALTER TABLE contact_import_plans FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON contact_import_plans USING (account_id = ANY (app_accounts()));
GRANT SELECT, INSERT, UPDATE, DELETE ON contact_import_plans TO turumba_api;
