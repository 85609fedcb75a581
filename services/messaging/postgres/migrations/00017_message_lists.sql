-- +goose Up
-- The single messages of a contact. Those of sends are found by the unique key of
-- sends and contacts, so that a send writes to no further index.
CREATE INDEX messages_single_contact ON messages (contact_id, created_at, id) WHERE group_message_id IS NULL;
