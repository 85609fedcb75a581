-- +goose Up
-- Neither an id nor its created_at changes once a row is there, but a check is made for
-- each update too: a tenth of what storing an outcome cost. A policy is held against what
-- is inserted alone, and nobody but a superuser is free of it.
ALTER TABLE messages DROP CONSTRAINT messages_created_at_in_id;
CREATE POLICY created_at_in_id ON messages AS RESTRICTIVE FOR INSERT WITH CHECK (
    substring(uuid_send(id), 1, 6) = substring(int8send((date_part('epoch', created_at) * 1000)::int8), 3, 6)
    AND created_at = date_trunc('milliseconds', created_at));

-- A row grows when it is sent, by its time and the provider's name for it. In pages half
-- full, the last ones of a page found no room beside them, one in eight, and were written
-- anew in every index. Decision E5 wants every update HOT.
-- +goose StatementBegin
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
        EXECUTE format('ALTER TABLE %s SET (fillfactor = 45)', part);
    END LOOP;
END $$;
-- +goose StatementEnd
