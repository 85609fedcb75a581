-- +goose Up
-- Accounts that must not send, as the account service tells them. The gate reads it.
CREATE TABLE blocked_accounts (
    account_id uuid PRIMARY KEY
);
GRANT SELECT, INSERT, DELETE ON blocked_accounts TO turumba_worker;
