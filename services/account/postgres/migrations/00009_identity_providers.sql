-- +goose Up
-- Access tokens of an identity provider outlive their session: it ends here, by its
-- id, or with all sessions of the user that began before a time.
CREATE TABLE ended_sessions (
    user_id    uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    session_id text NOT NULL,
    ended_at   timestamptz NOT NULL,
    PRIMARY KEY (user_id, session_id)
);
CREATE INDEX ended_sessions_ended_at ON ended_sessions (ended_at);
ALTER TABLE users ADD COLUMN sessions_since timestamptz;
GRANT SELECT, INSERT, UPDATE, DELETE ON ended_sessions TO turumba_api;
