-- +goose Up
-- How long the texts of an account's messages are kept after their end, in days; NULL
-- as the installation does.
ALTER TABLE accounts ADD COLUMN message_retention_days int CHECK (message_retention_days BETWEEN 1 AND 36500);
CREATE FUNCTION lookup.message_retention(after uuid, most int) RETURNS TABLE (id uuid, days int) LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp
    AS 'SELECT id, coalesce(message_retention_days, 0) FROM accounts WHERE id > after ORDER BY id LIMIT most';
REVOKE ALL ON FUNCTION lookup.message_retention(uuid, int) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION lookup.message_retention(uuid, int) TO turumba_api;
