-- The outbox: events appended in the transaction that changes an entity, and
-- the inbox: which events a consumer has had its effect from. Both hold ids and
-- states only, have no row-level security, and give the API INSERT only.

-- +goose Up
CREATE TABLE outbox_events (
    id             uuid        NOT NULL,
    event_type     text        NOT NULL,
    aggregate_type text        NOT NULL,
    aggregate_id   text        NOT NULL,
    traceparent    text        NOT NULL DEFAULT '',
    payload        jsonb       NOT NULL,
    created_at     timestamptz NOT NULL DEFAULT now(),
    due_at         timestamptz NOT NULL DEFAULT now(),
    published_at   timestamptz,
    attempts       integer     NOT NULL DEFAULT 0,
    last_error     text,
    PRIMARY KEY (id, created_at)
) PARTITION BY RANGE (created_at);

COMMENT ON TABLE outbox_events IS 'Events to publish. One partition per UTC day of created_at, no DEFAULT partition: rows in it would block the creation of their own day.';
COMMENT ON COLUMN outbox_events.id IS 'UUIDv7; the event_id in the payload and the message id on the wire.';
COMMENT ON COLUMN outbox_events.due_at IS 'Not published before; moved ahead after a failed attempt.';
COMMENT ON COLUMN outbox_events.published_at IS 'Set when the broker has confirmed; a row is claimed by this being null, never by its place in an order.';
COMMENT ON COLUMN outbox_events.attempts IS 'Attempts to publish. No number of them makes the relay give up.';

-- What the relay claims from. An entry leaves it when its row is published.
CREATE INDEX outbox_events_unpublished ON outbox_events (due_at) WHERE published_at IS NULL;

-- +goose StatementBegin
-- outbox_add_partition makes the partition of one UTC day and says whether it
-- was missing. Attaching a ready table locks out neither readers nor writers of
-- the parent, as CREATE TABLE … PARTITION OF would.
CREATE FUNCTION outbox_add_partition(day date) RETURNS boolean
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    name text := 'outbox_events_' || to_char(day, 'YYYYMMDD');
BEGIN
    IF to_regclass(name) IS NOT NULL THEN
        RETURN false;
    END IF;
    -- Every row is updated once: vacuum early, so that the claim does not walk
    -- over the entries of published rows.
    EXECUTE format('CREATE TABLE %I (LIKE outbox_events INCLUDING ALL) WITH ('
        'autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0, '
        'autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 5000)', name);
    EXECUTE format('ALTER TABLE outbox_events ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
        name, day::timestamp AT TIME ZONE 'UTC', (day + 1)::timestamp AT TIME ZONE 'UTC');
    RETURN true;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- outbox_upkeep makes the partitions of today and of ahead_days more, and drops
-- those of days more than keep_days ago in which nothing is unpublished. held
-- counts the old ones it left, because of unpublished rows or because the table
-- was in use. It goes by the server's clock: a wrong clock elsewhere cannot drop
-- a day.
CREATE FUNCTION outbox_upkeep(ahead_days integer, keep_days integer,
    OUT created integer, OUT dropped integer, OUT held integer, OUT ready_until date)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET lock_timeout = '500ms' AS $$
DECLARE
    today   date := (now() AT TIME ZONE 'UTC')::date;
    part    record;
    pending boolean;
BEGIN
    created := 0;
    dropped := 0;
    held := 0;
    PERFORM pg_advisory_xact_lock(hashtext('outbox_upkeep'));
    FOR i IN 0..least(greatest(ahead_days, 1), 60) LOOP
        IF outbox_add_partition(today + i) THEN
            created := created + 1;
        END IF;
    END LOOP;
    FOR part IN
        SELECT c.relname AS name, to_date(right(c.relname, 8), 'YYYYMMDD') AS day
        FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'outbox_events'::regclass
        ORDER BY day
    LOOP
        ready_until := part.day;
        CONTINUE WHEN part.day >= today - greatest(keep_days, 1);
        EXECUTE format('SELECT EXISTS (SELECT FROM %I WHERE published_at IS NULL)', part.name) INTO pending;
        IF pending THEN
            held := held + 1;
            CONTINUE;
        END IF;
        BEGIN
            -- The parent first, as everyone else locks. Then look again.
            LOCK TABLE ONLY outbox_events IN ACCESS EXCLUSIVE MODE;
            EXECUTE format('SELECT EXISTS (SELECT FROM %I WHERE published_at IS NULL)', part.name) INTO pending;
            IF NOT pending THEN
                EXECUTE format('DROP TABLE %I', part.name);
                dropped := dropped + 1;
            ELSE
                held := held + 1;
            END IF;
        EXCEPTION WHEN lock_not_available THEN
            held := held + 1;
        END;
    END LOOP;
END $$;
-- +goose StatementEnd

SELECT outbox_upkeep(14, 7);

CREATE TABLE inbox (
    event_id    uuid        NOT NULL,
    consumer    text        NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (event_id, consumer)
);

COMMENT ON TABLE inbox IS 'Events a consumer has had its effect from; written in the transaction of the effect. Not partitioned, because uniqueness must span days; purged by received_at.';

CREATE INDEX inbox_received_at ON inbox (received_at);

REVOKE ALL ON FUNCTION outbox_add_partition(date), outbox_upkeep(integer, integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION outbox_upkeep(integer, integer) TO turumba_worker;
GRANT INSERT ON outbox_events, inbox TO turumba_api, turumba_worker;
GRANT SELECT ON outbox_events, inbox TO turumba_worker;
GRANT UPDATE (due_at, published_at, attempts, last_error) ON outbox_events TO turumba_worker;
GRANT DELETE ON inbox TO turumba_worker;
