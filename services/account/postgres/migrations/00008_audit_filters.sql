-- +goose Up
-- What one API key did, as the index on the user does for people.
CREATE INDEX audit_events_api_key ON audit_events (account_id, actor_api_key_id, created_at, id) WHERE actor_api_key_id IS NOT NULL;
