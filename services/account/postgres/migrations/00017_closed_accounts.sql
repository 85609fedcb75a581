-- +goose Up
-- Closed accounts that others made count for no Owner of them: nothing can be owned there.
CREATE OR REPLACE FUNCTION lookup.memberships_of(of_user uuid, OUT joined bigint, OUT owned bigint) LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp
    AS 'SELECT (SELECT count(*) FROM account_users WHERE user_id = of_user), (SELECT count(*) FROM (
        SELECT id FROM accounts WHERE created_by_user_id = of_user
        UNION SELECT m.account_id FROM account_users m JOIN roles r ON r.account_id = m.account_id AND r.id = m.role_id
        JOIN accounts a ON a.id = m.account_id
        WHERE m.user_id = of_user AND r.name = ''Owner'' AND a.status <> ''closed'') of_theirs)';
