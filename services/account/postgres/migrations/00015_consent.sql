-- +goose Up
-- Who made an account: it counts among those that the person owns, also once they left it.
ALTER TABLE accounts ADD COLUMN created_by_user_id uuid REFERENCES users (id);
ALTER TABLE accounts NO FORCE ROW LEVEL SECURITY; -- for the owner of the table, who fills it
UPDATE accounts a SET created_by_user_id = coalesce(
    (SELECT u.id FROM audit_events e JOIN users u ON u.id = e.actor_user_id WHERE e.account_id = a.id AND e.resource_id = a.id AND e.action = 'account.create' LIMIT 1),
    (SELECT m.user_id FROM account_users m WHERE m.account_id = a.id AND m.created_at = a.created_at LIMIT 1));
ALTER TABLE accounts FORCE ROW LEVEL SECURITY;
CREATE INDEX accounts_created_by ON accounts (created_by_user_id);

-- How many accounts a person is in, and owns, of all accounts.
CREATE POLICY lookup_roles ON roles FOR SELECT TO turumba_owner USING (true);
CREATE FUNCTION lookup.memberships_of(of_user uuid, OUT joined bigint, OUT owned bigint) LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp
    AS 'SELECT (SELECT count(*) FROM account_users WHERE user_id = of_user), (SELECT count(*) FROM (
        SELECT id FROM accounts WHERE created_by_user_id = of_user
        UNION SELECT m.account_id FROM account_users m JOIN roles r ON r.account_id = m.account_id AND r.id = m.role_id
        WHERE m.user_id = of_user AND r.name = ''Owner'') of_theirs)';
REVOKE ALL ON FUNCTION lookup.memberships_of(uuid) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION lookup.memberships_of(uuid) TO turumba_api;

-- Lists read the 50 memberships that are the oldest.
CREATE OR REPLACE VIEW acting_members WITH (security_invoker = true) AS
    SELECT m.account_id, m.user_id, m.role_id, r.permissions, m.created_at
    FROM account_users m
    JOIN users u ON u.id = m.user_id AND u.is_active
    JOIN roles r ON r.account_id = m.account_id AND r.id = m.role_id;
