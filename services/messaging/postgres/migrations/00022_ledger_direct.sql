-- +goose Up
-- Nobody searches in the values of a message. They are kept as they come: to take them
-- apart for jsonb cost a tenth of writing a message.
ALTER TABLE messages ALTER COLUMN vars TYPE json;

-- The states that nearly all messages have come first: a check compares one by one.
ALTER TABLE messages DROP CONSTRAINT messages_status_check;
ALTER TABLE messages ADD CONSTRAINT messages_status_check CHECK (status IN
    ('queued', 'sent', 'delivered', 'failed', 'permanently_failed', 'cancelled', 'scheduled', 'sending'));

-- PostgreSQL reads the checks of a table anew for each statement. Lane, size and state of a
-- chunk are constants of the statements that write it.
ALTER TABLE dispatch_chunks DROP CONSTRAINT dispatch_chunks_lane_check, DROP CONSTRAINT dispatch_chunks_n_check, DROP CONSTRAINT dispatch_chunks_state_check;

-- As for messages (00018): the worker's rows are held against the setting as it was read
-- once for the statement.
-- +goose StatementBegin
DO $$
DECLARE
    t text;
BEGIN
    FOREACH t IN ARRAY ARRAY['channels', 'group_messages', 'suppressions', 'message_addresses'] LOOP
        EXECUTE format('DROP POLICY tenant ON %I', t);
        EXECUTE format('CREATE POLICY tenant ON %I TO turumba_worker USING (account_id = ANY ((SELECT app_accounts())::uuid[]))', t);
        EXECUTE format('CREATE POLICY tenant_lists ON %I TO turumba_api, turumba_owner USING (account_id = ANY (app_accounts()))', t);
    END LOOP;
END $$;
-- +goose StatementEnd

-- The pipeline names the month's partition, which an id tells (decision E5): an update by way of the
-- parent opened all of them, a fifth of what storing an outcome cost. A partition that is
-- named has its own policies, not the parent's: they are the same.
-- +goose StatementBegin
CREATE FUNCTION messages_open(part regclass) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', part);
    EXECUTE format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', part);
    EXECUTE format('CREATE POLICY tenant ON %s USING (account_id = ANY ((SELECT app_accounts())::uuid[]))', part);
    EXECUTE format('CREATE POLICY created_at_in_id ON %s AS RESTRICTIVE FOR INSERT WITH CHECK ('
        'substring(uuid_send(id), 1, 6) = substring(int8send((date_part(''epoch'', created_at) * 1000)::int8), 3, 6) '
        'AND created_at = date_trunc(''milliseconds'', created_at))', part);
    EXECUTE format('GRANT SELECT, INSERT, UPDATE ON %s TO turumba_worker', part);
END $$;

CREATE OR REPLACE FUNCTION messages_upkeep(ahead_months int) RETURNS int
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    month date := date_trunc('month', now() AT TIME ZONE 'UTC')::date;
    name  text;
    made  int := 0;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('messages_upkeep'));
    FOR i IN -1..ahead_months LOOP
        name := 'messages_' || to_char(month + make_interval(months => i), 'YYYYMM');
        IF to_regclass(name) IS NULL THEN
            EXECUTE format('CREATE TABLE %I PARTITION OF messages FOR VALUES FROM (%L) TO (%L) WITH (fillfactor = 45, '
                'autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05)', name,
                (month + make_interval(months => i))::timestamp AT TIME ZONE 'UTC',
                (month + make_interval(months => i + 1))::timestamp AT TIME ZONE 'UTC');
            PERFORM messages_open(name::regclass);
            made := made + 1;
        END IF;
    END LOOP;
    RETURN made;
END $$;
DO $$
DECLARE
    part regclass;
BEGIN
    FOR part IN SELECT inhrelid::regclass FROM pg_inherits WHERE inhparent = 'messages'::regclass LOOP
        PERFORM messages_open(part);
    END LOOP;
END $$;
-- +goose StatementEnd
