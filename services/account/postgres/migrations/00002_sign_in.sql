-- +goose Up
-- Codes and links that the identity provider mails: sealed, because they open
-- accounts. A mail is sent after the commit that asked for it, and survives a crash.
CREATE TABLE outgoing_mails (
    id         uuid PRIMARY KEY,
    sealed     bytea NOT NULL,
    attempts   int NOT NULL DEFAULT 0,
    not_before timestamptz NOT NULL,
    expires_at timestamptz NOT NULL
);
CREATE INDEX outgoing_mails_due ON outgoing_mails (not_before);

-- What may happen so often in so long: failed logins, codes, mails.
DROP TABLE login_failures;
CREATE TABLE attempt_limits (
    key        text PRIMARY KEY, -- what is limited, and the SHA-256 of whom
    attempts   int NOT NULL,
    window_end timestamptz NOT NULL
);
CREATE INDEX attempt_limits_end ON attempt_limits (window_end);

CREATE INDEX refresh_tokens_user ON refresh_tokens (user_id);

CREATE TABLE password_resets (
    user_id    uuid PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    code_hash  bytea NOT NULL,
    expires_at timestamptz NOT NULL
);

CREATE TABLE user_totp (
    user_id    uuid PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    secret     bytea NOT NULL, -- sealed
    enabled_at timestamptz,
    last_step  bigint NOT NULL DEFAULT 0, -- the newest 30 s step whose code was used
    created_at timestamptz NOT NULL
);
CREATE TABLE recovery_codes (
    user_id   uuid NOT NULL REFERENCES user_totp (user_id) ON DELETE CASCADE,
    code_hash bytea NOT NULL,
    PRIMARY KEY (user_id, code_hash)
);
CREATE TABLE login_challenges (
    session_hash bytea PRIMARY KEY,
    user_id      uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    expires_at   timestamptz NOT NULL
);
GRANT SELECT, INSERT, UPDATE, DELETE ON outgoing_mails, attempt_limits, password_resets, user_totp, recovery_codes, login_challenges TO turumba_api;

CREATE TABLE api_keys (
    id                 uuid PRIMARY KEY,
    account_id         uuid NOT NULL REFERENCES accounts (id),
    name               text NOT NULL,
    prefix             text NOT NULL,
    secret_hash        bytea NOT NULL,
    permissions        text[] NOT NULL,
    created_by_user_id uuid NOT NULL REFERENCES users (id),
    expires_at         timestamptz,
    last_used_at       timestamptz,
    revoked_at         timestamptz,
    created_at         timestamptz NOT NULL
);
CREATE INDEX api_keys_created_at ON api_keys (account_id, created_at, id);
ALTER TABLE api_keys ENABLE ROW LEVEL SECURITY;
ALTER TABLE api_keys FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON api_keys USING (account_id = ANY (app_accounts()));
CREATE POLICY lookup_keys ON api_keys FOR SELECT TO turumba_owner USING (true);
GRANT SELECT, INSERT, UPDATE ON api_keys TO turumba_api;

CREATE FUNCTION lookup.api_key_account(of_key uuid) RETURNS uuid LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp
    AS 'SELECT account_id FROM api_keys WHERE id = of_key';
REVOKE ALL ON FUNCTION lookup.api_key_account(uuid) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION lookup.api_key_account(uuid) TO turumba_api;

-- Who manages people manages keys: the presets of accounts that exist already.
UPDATE roles SET permissions = array_append(permissions, 'api_keys.manage')
    WHERE name IN ('Owner', 'Admin') AND NOT 'api_keys.manage' = ANY (permissions);
UPDATE roles SET permissions = (SELECT array_agg(p ORDER BY p) FROM unnest(permissions) AS p);
