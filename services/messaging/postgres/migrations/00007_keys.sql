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
