-- +goose Up
-- A CSV file on its way to being contacts: the file itself in chunks, then its rows
-- in batches, each batch in one transaction with the counts and the place to go on.
CREATE TABLE contact_imports (
    id                    uuid PRIMARY KEY,
    account_id            uuid NOT NULL REFERENCES accounts (id),
    status                text NOT NULL CHECK (status IN ('uploading', 'queued', 'processing', 'completed', 'failed', 'cancelled')),
    file_name             text NOT NULL,
    dry_run               boolean NOT NULL,
    encoding              text NOT NULL,
    delimiter             text NOT NULL,
    columns               jsonb NOT NULL,
    match_by              text[] NOT NULL,
    contact_group_ids     uuid[] NOT NULL,
    received_bytes        int NOT NULL DEFAULT 0,
    processed_bytes       int NOT NULL DEFAULT 0,
    read_count            int NOT NULL DEFAULT 0, -- records read, empty ones too: where to go on
    row_count             int NOT NULL DEFAULT 0,
    created_count         int NOT NULL DEFAULT 0,
    updated_count         int NOT NULL DEFAULT 0,
    rejected_count        int NOT NULL DEFAULT 0,
    error_message         text NOT NULL DEFAULT '',
    created_by_user_id    uuid,
    created_by_api_key_id uuid,
    finished_at           timestamptz,
    created_at            timestamptz NOT NULL,
    updated_at            timestamptz NOT NULL,
    UNIQUE (account_id, id),
    CHECK (row_count = created_count + updated_count + rejected_count)
);
CREATE INDEX contact_imports_created_at ON contact_imports (account_id, created_at, id);
CREATE INDEX contact_imports_open ON contact_imports (account_id) WHERE finished_at IS NULL;
CREATE INDEX contact_imports_age ON contact_imports (created_at);

CREATE TABLE contact_import_chunks (
    account_id uuid NOT NULL,
    import_id  uuid NOT NULL,
    starts_at  int NOT NULL, -- offset in the file
    data       bytea NOT NULL,
    PRIMARY KEY (import_id, starts_at),
    FOREIGN KEY (account_id, import_id) REFERENCES contact_imports (account_id, id) ON DELETE CASCADE
);
ALTER TABLE contact_import_chunks ALTER COLUMN data SET STORAGE EXTERNAL; -- read once, soon: compressing it costs more

CREATE TABLE contact_import_errors (
    account_id uuid NOT NULL,
    import_id  uuid NOT NULL,
    line       int NOT NULL,
    code       text NOT NULL,
    field      text NOT NULL,
    message    text NOT NULL,
    cells      text[] NOT NULL,
    PRIMARY KEY (import_id, line),
    FOREIGN KEY (account_id, import_id) REFERENCES contact_imports (account_id, id) ON DELETE CASCADE
);

-- What a dry run would store: contacts of the account as they would be, and new ones.
CREATE TABLE contact_import_drafts (
    account_id uuid NOT NULL,
    import_id  uuid NOT NULL,
    id         uuid NOT NULL,
    doc        jsonb NOT NULL,
    PRIMARY KEY (import_id, id),
    FOREIGN KEY (account_id, import_id) REFERENCES contact_imports (account_id, id) ON DELETE CASCADE
);
CREATE INDEX contact_import_drafts_email ON contact_import_drafts (import_id, (doc ->> 'email'));
CREATE INDEX contact_import_drafts_phone ON contact_import_drafts (import_id, (doc ->> 'phone'));
CREATE INDEX contact_import_drafts_external ON contact_import_drafts (import_id, (doc ->> 'external_id'));
CREATE INDEX contact_import_drafts_telegram ON contact_import_drafts (import_id, (doc -> 'identifiers' ->> 'telegram'));
CREATE INDEX contact_import_drafts_whatsapp ON contact_import_drafts (import_id, (doc -> 'identifiers' ->> 'whatsapp'));
CREATE INDEX contact_import_drafts_messenger ON contact_import_drafts (import_id, (doc -> 'identifiers' ->> 'messenger'));

-- +goose StatementBegin
DO $$
DECLARE
    t text;
BEGIN
    FOREACH t IN ARRAY ARRAY ['contact_imports', 'contact_import_chunks', 'contact_import_errors', 'contact_import_drafts'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', t);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', t);
        EXECUTE format('CREATE POLICY tenant ON %I USING (account_id = ANY (app_accounts()))', t);
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %I TO turumba_api', t);
    END LOOP;
END $$;
-- +goose StatementEnd

-- Files that are complete and not yet done, claimed by lease. Ids only.
CREATE TABLE contact_import_jobs (
    import_id   uuid PRIMARY KEY,
    account_id  uuid NOT NULL,
    epoch       int NOT NULL DEFAULT 0, -- one more with each claim; a claim that is not the newest writes nothing
    lease_until timestamptz NOT NULL,
    created_at  timestamptz NOT NULL
);
GRANT SELECT, INSERT, UPDATE, DELETE ON contact_import_jobs TO turumba_api;

CREATE POLICY purge_imports ON contact_imports TO turumba_owner USING (true);
CREATE FUNCTION contact_imports_purge(older_than timestamptz, uploads_older_than timestamptz, most int) RETURNS int LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp
    AS 'WITH gone AS (DELETE FROM contact_imports WHERE id IN (SELECT id FROM contact_imports
            WHERE created_at < older_than AND finished_at IS NOT NULL OR created_at < uploads_older_than AND status = ''uploading'' LIMIT most) RETURNING 1)
        SELECT count(*)::int FROM gone';
REVOKE ALL ON FUNCTION contact_imports_purge(timestamptz, timestamptz, int) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION contact_imports_purge(timestamptz, timestamptz, int) TO turumba_api;

-- An import outruns autovacuum, and without statistics the planner walks through all
-- contacts of an account for each key: they are renewed whenever the table has doubled.
-- +goose StatementBegin
CREATE FUNCTION contacts_analyze() RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    IF (SELECT pg_relation_size(oid) / current_setting('block_size')::int > 2 * greatest(relpages, 8) FROM pg_class WHERE oid = 'contact_documents'::regclass) THEN
        ANALYZE contact_documents;
    END IF;
END $$;
-- +goose StatementEnd
REVOKE ALL ON FUNCTION contacts_analyze() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION contacts_analyze() TO turumba_api;
