-- +goose Up
-- What lists of messages lean on, so that sends write to no further index: single messages
-- have indexes of their own; the sends of an account are found by the time of their messages.
-- The first condition keeps the pipeline, which does not repeat it, from these indexes.
CREATE INDEX messages_single_listed ON messages (account_id, created_at, id) WHERE direction <> 'none' AND group_message_id IS NULL;
CREATE INDEX messages_single_channel ON messages (channel_id, created_at, id) WHERE direction <> 'none' AND group_message_id IS NULL;
CREATE INDEX messages_single_address ON messages (account_id, delivery_address, created_at, id) WHERE direction <> 'none' AND group_message_id IS NULL;
CREATE INDEX group_messages_started ON group_messages (account_id, started_at) WHERE started_at IS NOT NULL;

-- The addresses of up to 500 messages of a send, one page for each chunk, in lower case
-- between line feeds: a search reads these instead of the messages. Packed they would be
-- smaller, but each search would unpack all.
CREATE TABLE message_addresses (
    account_id       uuid NOT NULL,
    group_message_id uuid NOT NULL,
    created_at       timestamptz NOT NULL,
    first_id         uuid NOT NULL,
    last_id          uuid NOT NULL,
    addresses        text NOT NULL,
    PRIMARY KEY (account_id, created_at, first_id)
);

ALTER TABLE message_addresses ALTER COLUMN addresses SET STORAGE EXTERNAL;

-- A page as it is kept. lower() knows all letters and takes far longer than the one that
-- knows only those of ASCII, which nearly all addresses are made of.
CREATE FUNCTION address_page(page text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN octet_length(page) = char_length(page) THEN lower(page COLLATE "C") ELSE lower(page) END;

-- The owner is bound by the policies, like all, except in here.
ALTER TABLE messages NO FORCE ROW LEVEL SECURITY;
INSERT INTO message_addresses (account_id, group_message_id, created_at, first_id, last_id, addresses)
SELECT account_id, group_message_id, created_at, (array_agg(id ORDER BY id))[1], (array_agg(id ORDER BY id DESC))[1],
    address_page(E'\n' || string_agg(delivery_address, E'\n' ORDER BY id) || E'\n')
FROM (SELECT account_id, group_message_id, created_at, id, delivery_address, (row_number() OVER (PARTITION BY group_message_id, created_at ORDER BY id) - 1) / 500 AS page
    FROM messages WHERE group_message_id IS NOT NULL) AS m
GROUP BY account_id, group_message_id, created_at, page;
ALTER TABLE messages FORCE ROW LEVEL SECURITY;

ALTER TABLE message_addresses ENABLE ROW LEVEL SECURITY;
ALTER TABLE message_addresses FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON message_addresses USING (account_id = ANY (app_accounts()));
GRANT SELECT, UPDATE ON message_addresses TO turumba_api;
GRANT SELECT, INSERT, UPDATE ON message_addresses TO turumba_worker;
