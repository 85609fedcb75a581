-- +goose Up
-- Who may act in an account now, and by which permissions. Whatever acts for a person
-- asks here when it acts: an API key, an invitation, an import.
CREATE VIEW acting_members WITH (security_invoker = true) AS
    SELECT m.account_id, m.user_id, m.role_id, r.permissions
    FROM account_users m
    JOIN users u ON u.id = m.user_id AND u.is_active
    JOIN roles r ON r.account_id = m.account_id AND r.id = m.role_id;
GRANT SELECT ON acting_members TO turumba_api;
