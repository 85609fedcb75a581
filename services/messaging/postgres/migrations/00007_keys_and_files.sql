-- +goose Up
-- Channels whose secrets the operator seals anew: ids only.
CREATE SCHEMA lookup;
GRANT USAGE ON SCHEMA lookup TO turumba_api, turumba_worker;
CREATE POLICY lookup_channels ON channels FOR SELECT TO turumba_owner USING (true);
CREATE FUNCTION lookup.sealed_channels(after uuid, most int) RETURNS TABLE (id uuid, account_id uuid) LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp
    AS 'SELECT id, account_id FROM channels WHERE id > after AND sealed <> ''{}'' ORDER BY id LIMIT most';
REVOKE ALL ON FUNCTION lookup.sealed_channels(uuid, int) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION lookup.sealed_channels(uuid, int) TO turumba_api;

-- Keys of the service itself, sealed. They outlive the master key.
CREATE TABLE sealed_keys (
    name   text PRIMARY KEY,
    sealed bytea NOT NULL
);
GRANT SELECT, INSERT, UPDATE ON sealed_keys TO turumba_api, turumba_worker;

-- Files of templates, kept once for each account however often they are used: copies of
-- a template and sends name them by their digest.
CREATE TABLE attachment_files (
    account_id uuid NOT NULL,
    digest     text NOT NULL, -- SHA-256, hex
    data       bytea NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (account_id, digest)
);
ALTER TABLE attachment_files ALTER COLUMN data SET STORAGE EXTERNAL; -- mostly compressed already
CREATE TABLE template_attachments (
    id          uuid NOT NULL,
    account_id  uuid NOT NULL,
    template_id uuid NOT NULL,
    filename    text NOT NULL,
    media_type  text NOT NULL,
    content_id  text NOT NULL DEFAULT '',
    size        int NOT NULL,
    digest      text NOT NULL,
    created_at  timestamptz NOT NULL,
    PRIMARY KEY (account_id, id),
    FOREIGN KEY (account_id, template_id) REFERENCES template_rows (account_id, id) ON DELETE CASCADE,
    FOREIGN KEY (account_id, digest) REFERENCES attachment_files (account_id, digest)
);
CREATE INDEX template_attachments_template ON template_attachments (account_id, template_id, created_at, id);
CREATE INDEX template_attachments_digest ON template_attachments (account_id, digest);
-- What a send took with it stays as long as the send.
CREATE TABLE group_message_files (
    account_id       uuid NOT NULL,
    group_message_id uuid NOT NULL,
    digest           text NOT NULL,
    PRIMARY KEY (account_id, group_message_id, digest),
    FOREIGN KEY (account_id, digest) REFERENCES attachment_files (account_id, digest)
);
CREATE INDEX group_message_files_digest ON group_message_files (account_id, digest);
-- +goose StatementBegin
DO $$
DECLARE
    t text;
BEGIN
    FOREACH t IN ARRAY ARRAY['attachment_files', 'template_attachments', 'group_message_files'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', t);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', t);
        EXECUTE format('CREATE POLICY tenant ON %I USING (account_id = ANY (app_accounts()))', t);
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %I TO turumba_api, turumba_worker', t);
    END LOOP;
END $$;
-- +goose StatementEnd
