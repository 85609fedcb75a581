-- +goose Up
CREATE INDEX accounts_blocked ON accounts (id) WHERE status <> 'active';
CREATE POLICY lookup_accounts ON accounts FOR SELECT TO turumba_owner USING (true);
CREATE FUNCTION lookup.blocked_accounts() RETURNS SETOF uuid LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp
    AS 'SELECT id FROM accounts WHERE status <> ''active'' ORDER BY id';
REVOKE ALL ON FUNCTION lookup.blocked_accounts() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION lookup.blocked_accounts() TO turumba_api;
