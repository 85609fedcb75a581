-- +goose Up
-- What was given on an epoch works while the user's epoch is the same.
ALTER TABLE users ADD COLUMN credential_epoch bigint NOT NULL DEFAULT 0;

-- One row a session, of our own logins and of those at another identity provider. Who
-- issues or revokes holds the user's row and then this one.
CREATE TABLE sessions (
    user_id          uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    id               text NOT NULL,
    credential_epoch bigint NOT NULL,
    own              boolean NOT NULL, -- our own login; others may outlive it by a day
    factor           boolean NOT NULL DEFAULT false, -- the login took the second factor
    began_at         timestamptz NOT NULL,
    moved_at         timestamptz, -- kept while the epoch was raised
    expires_at       timestamptz NOT NULL,
    revoked_at       timestamptz,
    PRIMARY KEY (user_id, id)
);
CREATE INDEX sessions_expires_at ON sessions (expires_at);
GRANT SELECT, INSERT, UPDATE, DELETE ON sessions TO turumba_api;

-- Sessions of before go on. One of whose tokens was revoked was meant to end with all.
ALTER TABLE refresh_tokens ALTER COLUMN family_id TYPE text;
INSERT INTO sessions (user_id, id, credential_epoch, own, began_at, expires_at, revoked_at)
    SELECT user_id, family_id, 0, true, min(created_at), max(expires_at), max(revoked_at) FROM refresh_tokens GROUP BY user_id, family_id;
INSERT INTO sessions (user_id, id, credential_epoch, own, began_at, expires_at, revoked_at)
    SELECT user_id, session_id, 0, false, ended_at, ended_at + interval '25 hours', ended_at FROM ended_sessions ON CONFLICT DO NOTHING;
DROP TABLE ended_sessions;
ALTER TABLE refresh_tokens DROP COLUMN revoked_at,
    ADD CONSTRAINT refresh_tokens_session_fkey FOREIGN KEY (user_id, family_id) REFERENCES sessions (user_id, id) ON DELETE CASCADE;
DROP INDEX refresh_tokens_family, refresh_tokens_user;
CREATE INDEX refresh_tokens_session ON refresh_tokens (user_id, family_id);

-- Codes that were mailed and logins that wait for the second factor belong to an epoch
-- too. Those of before are good for minutes and go on.
ALTER TABLE password_resets ADD COLUMN credential_epoch bigint NOT NULL DEFAULT 0;
ALTER TABLE login_challenges ADD COLUMN credential_epoch bigint NOT NULL DEFAULT 0;
