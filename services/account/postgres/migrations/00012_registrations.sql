-- +goose Up
-- One row a registration, found by the hash of the token that Register answered: a later
-- registration of an address is another row and changes nothing of an earlier one.
-- Registrations of before have no token, so nobody could finish them: they end, and who
-- still waits for a code registers again.
DELETE FROM pending_registrations;
ALTER TABLE pending_registrations
    DROP CONSTRAINT pending_registrations_pkey,
    ADD COLUMN token_hash bytea PRIMARY KEY,
    ADD COLUMN known boolean NOT NULL DEFAULT false, -- the address has a user: the row answers as any other and gives nothing
    ADD COLUMN subject text NOT NULL DEFAULT ''; -- who signed up for it at another identity provider
CREATE INDEX pending_registrations_email ON pending_registrations (email, created_at);
CREATE INDEX pending_registrations_age ON pending_registrations (created_at);
