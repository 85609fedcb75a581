-- +goose Up
-- The operator's recount goes through the sends of all accounts. It learns which there
-- are, and works on each in the scope of its account.
CREATE SCHEMA IF NOT EXISTS lookup;
GRANT USAGE ON SCHEMA lookup TO turumba_api, turumba_worker;
CREATE POLICY lookup_sends ON group_messages FOR SELECT TO turumba_owner USING (true);
CREATE FUNCTION lookup.sends_after(after uuid, most int) RETURNS TABLE (id uuid, account_id uuid) LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp
    AS 'SELECT id, account_id FROM group_messages WHERE id > after AND started_at IS NOT NULL ORDER BY id LIMIT most';
REVOKE ALL ON FUNCTION lookup.sends_after(uuid, int) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION lookup.sends_after(uuid, int) TO turumba_worker;

-- Work carries on the trace of the call that made it: pg.InTx tells which that is.
ALTER TABLE fanout_jobs ADD COLUMN traceparent text NOT NULL DEFAULT coalesce(current_setting('app.traceparent', true), '');
ALTER TABLE dispatch_chunks ADD COLUMN traceparent text NOT NULL DEFAULT coalesce(current_setting('app.traceparent', true), '');
