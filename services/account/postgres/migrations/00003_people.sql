-- +goose Up
CREATE TABLE invitations (
    id                 uuid PRIMARY KEY,
    account_id         uuid NOT NULL REFERENCES accounts (id),
    email              text NOT NULL CHECK (email = lower(email)),
    role_id            uuid NOT NULL,
    token_hash         bytea NOT NULL CONSTRAINT invitations_token_key UNIQUE,
    status             text NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'accepted', 'revoked')),
    invited_by_user_id uuid NOT NULL REFERENCES users (id),
    expires_at         timestamptz NOT NULL,
    accepted_at        timestamptz,
    created_at         timestamptz NOT NULL,
    updated_at         timestamptz NOT NULL,
    CONSTRAINT invitations_role_fkey FOREIGN KEY (account_id, role_id) REFERENCES roles (account_id, id) ON DELETE CASCADE
);
CREATE UNIQUE INDEX invitations_pending_key ON invitations (account_id, email) WHERE status = 'pending';
CREATE INDEX invitations_created_at ON invitations (account_id, created_at, id);
CREATE INDEX invitations_role ON invitations (account_id, role_id);

-- Who did what. Rows are only added; the purge runs as the owner.
CREATE TABLE audit_events (
    id               uuid PRIMARY KEY,
    account_id       uuid NOT NULL,
    action           text NOT NULL,
    resource_type    text NOT NULL,
    resource_id      uuid NOT NULL,
    actor_user_id    uuid,
    actor_api_key_id uuid,
    ip               text NOT NULL DEFAULT '',
    user_agent       text NOT NULL DEFAULT '',
    request_id       text NOT NULL DEFAULT '',
    changes          jsonb NOT NULL DEFAULT '{}',
    created_at       timestamptz NOT NULL
);
CREATE INDEX audit_events_created_at ON audit_events (account_id, created_at, id);
CREATE INDEX audit_events_resource ON audit_events (account_id, resource_id, created_at, id);
CREATE INDEX audit_events_actor ON audit_events (account_id, actor_user_id, created_at, id);
CREATE INDEX audit_events_age ON audit_events (created_at);

-- +goose StatementBegin
DO $$
DECLARE
    t text;
BEGIN
    FOREACH t IN ARRAY ARRAY ['invitations', 'audit_events'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', t);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', t);
        EXECUTE format('CREATE POLICY tenant ON %I USING (account_id = ANY (app_accounts()))', t);
    END LOOP;
END $$;
-- +goose StatementEnd
GRANT SELECT, INSERT, UPDATE ON invitations TO turumba_api;
GRANT SELECT, INSERT ON audit_events TO turumba_api;

CREATE POLICY lookup_invitations ON invitations FOR SELECT TO turumba_owner USING (true);
CREATE FUNCTION lookup.invitation_account(of_token bytea) RETURNS uuid LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp
    AS 'SELECT account_id FROM invitations WHERE token_hash = of_token';
REVOKE ALL ON FUNCTION lookup.invitation_account(bytea) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION lookup.invitation_account(bytea) TO turumba_api;

CREATE POLICY purge_audit ON audit_events TO turumba_owner USING (true);
CREATE FUNCTION audit_purge(older_than timestamptz, most int) RETURNS int LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp
    AS 'WITH gone AS (DELETE FROM audit_events WHERE id IN (SELECT id FROM audit_events WHERE created_at < older_than LIMIT most) RETURNING 1) SELECT count(*)::int FROM gone';
REVOKE ALL ON FUNCTION audit_purge(timestamptz, int) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION audit_purge(timestamptz, int) TO turumba_api;

-- Who registers with an invitation makes no account.
ALTER TABLE pending_registrations ADD COLUMN invitation_hash bytea;
ALTER TABLE accounts ADD COLUMN status_reason text NOT NULL DEFAULT '';
