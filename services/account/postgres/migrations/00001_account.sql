-- +goose Up
CREATE SCHEMA lookup;
GRANT USAGE ON SCHEMA lookup TO turumba_api, turumba_worker;

CREATE FUNCTION app_accounts() RETURNS uuid[] LANGUAGE sql STABLE PARALLEL SAFE
    RETURN string_to_array(nullif(current_setting('app.accounts', true), ''), ',')::uuid[];

-- Users belong to no account; who sees them is decided by memberships.
CREATE TABLE users (
    id            uuid PRIMARY KEY,
    email         text NOT NULL CONSTRAINT users_email_key UNIQUE CHECK (email = lower(email)),
    phone         text,
    given_name    text NOT NULL DEFAULT '',
    family_name   text NOT NULL DEFAULT '',
    idp_issuer    text NOT NULL,
    idp_subject   text NOT NULL,
    password_hash text,
    is_active     boolean NOT NULL DEFAULT true,
    created_at    timestamptz NOT NULL,
    updated_at    timestamptz NOT NULL,
    UNIQUE (idp_issuer, idp_subject)
);

CREATE TABLE accounts (
    id              uuid PRIMARY KEY,
    name            text NOT NULL,
    status          text NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'suspended', 'closed')),
    description     text NOT NULL DEFAULT '',
    default_country text NOT NULL DEFAULT '',
    created_at      timestamptz NOT NULL,
    updated_at      timestamptz NOT NULL
);

CREATE TABLE roles (
    id          uuid PRIMARY KEY,
    account_id  uuid NOT NULL REFERENCES accounts (id),
    name        text NOT NULL,
    permissions text[] NOT NULL,
    created_at  timestamptz NOT NULL,
    updated_at  timestamptz NOT NULL,
    CONSTRAINT roles_name_key UNIQUE (account_id, name),
    UNIQUE (account_id, id)
);

CREATE TABLE account_users (
    id         uuid PRIMARY KEY,
    account_id uuid NOT NULL REFERENCES accounts (id),
    user_id    uuid NOT NULL REFERENCES users (id),
    role_id    uuid NOT NULL,
    created_at timestamptz NOT NULL,
    CONSTRAINT account_users_key UNIQUE (account_id, user_id),
    CONSTRAINT account_users_role_fkey FOREIGN KEY (account_id, role_id) REFERENCES roles (account_id, id)
);
CREATE INDEX account_users_user ON account_users (user_id);

-- Contacts are documents. Their text and JSON searches need index conditions that
-- row-level security would disable, so the base table is out of reach and a
-- tenant view stands before it.
CREATE TABLE contact_documents (
    id         uuid PRIMARY KEY,
    account_id uuid NOT NULL,
    doc        jsonb NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    UNIQUE (account_id, id)
);
CREATE UNIQUE INDEX contacts_email_key ON contact_documents (account_id, (doc ->> 'email')) WHERE doc ->> 'email' IS NOT NULL;
CREATE UNIQUE INDEX contacts_phone_key ON contact_documents (account_id, (doc ->> 'phone')) WHERE doc ->> 'phone' IS NOT NULL;
CREATE INDEX contacts_created_at ON contact_documents (account_id, created_at, id);
CREATE INDEX contacts_name ON contact_documents (account_id, (doc ->> 'name'), id);
CREATE INDEX contacts_doc ON contact_documents USING gin (doc jsonb_path_ops);
CREATE INDEX contacts_name_trgm ON contact_documents USING gin ((doc ->> 'name') gin_trgm_ops);
CREATE INDEX contacts_email_trgm ON contact_documents USING gin ((doc ->> 'email') gin_trgm_ops);

CREATE VIEW contacts AS
    SELECT id, account_id, doc, created_at, updated_at FROM contact_documents WHERE account_id = ANY (app_accounts())
    WITH CASCADED CHECK OPTION;

CREATE TABLE contact_groups (
    id          uuid PRIMARY KEY,
    account_id  uuid NOT NULL,
    name        text NOT NULL,
    description text NOT NULL DEFAULT '',
    created_at  timestamptz NOT NULL,
    updated_at  timestamptz NOT NULL,
    CONSTRAINT contact_groups_name_key UNIQUE (account_id, name),
    UNIQUE (account_id, id)
);

CREATE TABLE contact_group_members (
    account_id uuid NOT NULL,
    group_id   uuid NOT NULL,
    contact_id uuid NOT NULL,
    PRIMARY KEY (account_id, group_id, contact_id),
    CONSTRAINT members_group_fkey FOREIGN KEY (account_id, group_id) REFERENCES contact_groups (account_id, id) ON DELETE CASCADE,
    CONSTRAINT members_contact_fkey FOREIGN KEY (account_id, contact_id) REFERENCES contact_documents (account_id, id) ON DELETE CASCADE
);
CREATE INDEX contact_group_members_contact ON contact_group_members (account_id, contact_id);

-- The local identity provider.
CREATE TABLE pending_registrations (
    email         text PRIMARY KEY,
    password_hash text NOT NULL,
    full_name     text NOT NULL,
    account_name  text NOT NULL,
    code_hash     bytea NOT NULL,
    code_expires  timestamptz NOT NULL,
    attempts      int NOT NULL DEFAULT 0,
    user_id       uuid,
    account_id    uuid,
    created_at    timestamptz NOT NULL
);
CREATE TABLE refresh_tokens (
    token_hash bytea PRIMARY KEY,
    family_id  uuid NOT NULL,
    user_id    uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    expires_at timestamptz NOT NULL,
    used_at    timestamptz,
    revoked_at timestamptz,
    created_at timestamptz NOT NULL
);
CREATE INDEX refresh_tokens_family ON refresh_tokens (family_id);
CREATE INDEX refresh_tokens_expires ON refresh_tokens (expires_at);
CREATE TABLE signing_keys (
    kid         text PRIMARY KEY,
    private_key bytea NOT NULL, -- PKCS #8, sealed
    public_jwk  jsonb NOT NULL,
    created_at  timestamptz NOT NULL
);
CREATE TABLE login_failures (
    key        text PRIMARY KEY, -- 'email:' or 'ip:' and a SHA-256
    failures   int NOT NULL,
    started_at timestamptz NOT NULL
);

-- The second net: a statement without its account predicate finds nothing.
-- +goose StatementBegin
DO $$
DECLARE
    t record;
BEGIN
    FOR t IN SELECT * FROM (VALUES ('accounts', 'id'), ('roles', 'account_id'), ('account_users', 'account_id'),
        ('contact_groups', 'account_id'), ('contact_group_members', 'account_id')) AS v (name, tenant)
    LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', t.name);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', t.name);
        EXECUTE format('CREATE POLICY tenant ON %I USING (%I = ANY (app_accounts()))', t.name, t.tenant);
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %I TO turumba_api', t.name);
    END LOOP;
END $$;
-- +goose StatementEnd
GRANT SELECT, INSERT, UPDATE, DELETE ON contacts TO turumba_api;
GRANT SELECT, INSERT, UPDATE, DELETE ON users, pending_registrations, refresh_tokens, signing_keys, login_failures TO turumba_api;

-- Look-ups before the tenant is known. They return ids only.
-- The policies are FORCEd on the owner too, so the look-up names the user's
-- accounts through a policy of its own.
CREATE POLICY lookup_memberships ON account_users FOR SELECT TO turumba_owner USING (true);
CREATE FUNCTION lookup.account_ids(of_user uuid) RETURNS SETOF uuid LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp
    AS 'SELECT account_id FROM account_users WHERE user_id = of_user ORDER BY account_id';
REVOKE ALL ON FUNCTION lookup.account_ids(uuid) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION lookup.account_ids(uuid) TO turumba_api;
