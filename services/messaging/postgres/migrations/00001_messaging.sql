-- +goose Up
CREATE FUNCTION app_accounts() RETURNS uuid[] LANGUAGE sql STABLE PARALLEL SAFE
    RETURN string_to_array(nullif(current_setting('app.accounts', true), ''), ',')::uuid[];

-- The time inside a UUIDv7: created_at of a message is always it, so an id alone
-- finds its partition.
CREATE FUNCTION uuid7_time(id uuid) RETURNS timestamptz LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN timestamptz 'epoch' + (('x' || replace(left(id::text, 13), '-', ''))::bit(48)::bigint) * interval '1 millisecond';

-- The graph of decision D1; '' is the state before a message exists.
CREATE FUNCTION message_status_allowed(from_status text, to_status text) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (from_status, to_status) IN (
        ('', 'scheduled'), ('', 'queued'), ('', 'delivered'),
        ('scheduled', 'queued'), ('scheduled', 'cancelled'),
        ('queued', 'sending'), ('queued', 'cancelled'), ('queued', 'permanently_failed'),
        ('sending', 'sent'), ('sending', 'failed'), ('sending', 'permanently_failed'), ('sending', 'queued'),
        ('failed', 'sending'), ('failed', 'permanently_failed'), ('failed', 'cancelled'),
        ('sent', 'delivered'), ('sent', 'permanently_failed'),
        ('permanently_failed', 'sent'), ('permanently_failed', 'delivered'), ('permanently_failed', 'queued'));

-- How a send ends when its last recipient has an outcome (decision D2).
CREATE FUNCTION group_message_end(status text, sent int, failed int, error text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE
        WHEN status = 'cancelled' THEN 'cancelled'
        WHEN failed > 0 AND sent > 0 THEN 'partially_failed'
        WHEN failed > 0 OR error <> '' THEN 'failed'
        ELSE 'completed' END;

CREATE TABLE channels (
    id                   uuid PRIMARY KEY,
    account_id           uuid NOT NULL,
    name                 text NOT NULL,
    channel_type         text NOT NULL CHECK (channel_type IN ('sms', 'smpp', 'telegram', 'whatsapp', 'messenger', 'email')),
    provider             text NOT NULL,
    status               text NOT NULL DEFAULT 'disconnected' CHECK (status IN ('connected', 'disconnected', 'rate_limited', 'error', 'disabled')),
    is_enabled           boolean NOT NULL DEFAULT true,
    settings             jsonb NOT NULL,
    secrets              jsonb NOT NULL DEFAULT '{}',
    sealed               jsonb NOT NULL DEFAULT '{}',
    sender_name          text NOT NULL DEFAULT '',
    default_country_code text NOT NULL DEFAULT '',
    rate_limit           int,
    priority             int NOT NULL DEFAULT 0,
    retry_count          int NOT NULL DEFAULT 3,
    retry_interval       int NOT NULL DEFAULT 60,
    connections          int NOT NULL DEFAULT 4,
    on_unknown           text NOT NULL DEFAULT 'hold' CHECK (on_unknown IN ('hold', 'resend')),
    send_epoch           bigint NOT NULL DEFAULT 1,
    last_verified_at     timestamptz,
    error_message        text NOT NULL DEFAULT '',
    paused_until         timestamptz,
    created_at           timestamptz NOT NULL,
    updated_at           timestamptz NOT NULL,
    UNIQUE (account_id, id)
);
CREATE INDEX channels_created_at ON channels (account_id, created_at, id);

-- Templates are searched by text, whose index conditions row-level security
-- would disable: a tenant view stands before the base table.
CREATE TABLE template_rows (
    id                   uuid PRIMARY KEY,
    account_id           uuid NOT NULL,
    name                 text NOT NULL,
    body                 text NOT NULL,
    html_body            text NOT NULL DEFAULT '',
    subject              text NOT NULL DEFAULT '',
    category             text NOT NULL DEFAULT '',
    channel_type         text NOT NULL DEFAULT '',
    language             text NOT NULL DEFAULT '',
    variables            text[] NOT NULL DEFAULT '{}',
    default_values       jsonb NOT NULL DEFAULT '{}',
    fallback_strategy    text NOT NULL DEFAULT 'keep_placeholder' CHECK (fallback_strategy IN ('keep_placeholder', 'use_default', 'skip_contact')),
    approval_status      text NOT NULL DEFAULT '',
    external_template_id text NOT NULL DEFAULT '',
    is_active            boolean NOT NULL DEFAULT true,
    created_by_user_id   uuid,
    created_at           timestamptz NOT NULL,
    updated_at           timestamptz NOT NULL,
    UNIQUE (account_id, id)
);
CREATE UNIQUE INDEX templates_name_key ON template_rows (account_id, lower(name)) WHERE category <> 'auto-generated';
CREATE INDEX templates_created_at ON template_rows (account_id, created_at, id);
CREATE INDEX templates_name_trgm ON template_rows USING gin (name gin_trgm_ops);
CREATE VIEW templates AS
    SELECT * FROM template_rows WHERE account_id = ANY (app_accounts())
    WITH CASCADED CHECK OPTION;

CREATE TABLE group_messages (
    id                  uuid PRIMARY KEY,
    account_id          uuid NOT NULL,
    name                text NOT NULL DEFAULT '',
    channel_id          uuid NOT NULL,
    template_id         uuid NOT NULL,
    status              text NOT NULL CHECK (status IN ('draft', 'scheduled', 'queued', 'processing', 'completed', 'partially_failed', 'failed', 'cancelled')),
    contact_group_ids   uuid[] NOT NULL,
    exclude_contact_ids uuid[] NOT NULL DEFAULT '{}',
    custom_values       jsonb NOT NULL DEFAULT '{}',
    metadata            jsonb,
    snapshot            jsonb,
    total_recipients    int NOT NULL DEFAULT 0,
    pending_count       int NOT NULL DEFAULT 0 CHECK (pending_count >= 0),
    sent_count          int NOT NULL DEFAULT 0,
    failed_count        int NOT NULL DEFAULT 0,
    cancelled_count     int NOT NULL DEFAULT 0,
    unknown_count       int NOT NULL DEFAULT 0,
    skipped_count       int NOT NULL DEFAULT 0,
    delivered_count     int NOT NULL DEFAULT 0,
    fanout_done         boolean NOT NULL DEFAULT false,
    created_by_user_id  uuid,
    error_message       text NOT NULL DEFAULT '',
    started_at          timestamptz,
    completed_at        timestamptz,
    deleted_at          timestamptz,
    created_at          timestamptz NOT NULL,
    updated_at          timestamptz NOT NULL,
    UNIQUE (account_id, id),
    CHECK (total_recipients = pending_count + sent_count + failed_count + cancelled_count)
) WITH (fillfactor = 50);
CREATE INDEX group_messages_created_at ON group_messages (account_id, created_at, id);

CREATE TABLE group_message_skips (
    account_id       uuid NOT NULL,
    group_message_id uuid NOT NULL,
    contact_id       uuid NOT NULL,
    reason           text NOT NULL,
    created_at       timestamptz NOT NULL,
    PRIMARY KEY (account_id, group_message_id, contact_id)
);

-- The ledger. No foreign keys and no index on what changes (decision E5): updates
-- stay HOT.
CREATE TABLE messages (
    id                  uuid NOT NULL,
    account_id          uuid NOT NULL,
    channel_id          uuid,
    contact_id          uuid,
    group_message_id    uuid,
    template_id         uuid,
    chunk_id            uuid,
    ordinal             int NOT NULL DEFAULT 0,
    direction           text NOT NULL DEFAULT 'outbound' CHECK (direction IN ('outbound', 'inbound', 'system')),
    status              text NOT NULL CHECK (status IN ('scheduled', 'queued', 'sending', 'sent', 'delivered', 'failed', 'permanently_failed', 'cancelled')),
    delivery_address    text NOT NULL,
    vars                jsonb,
    message_body        text,
    provider_message_id text,
    attempts            int NOT NULL DEFAULT 0,
    error_code          text,
    error_provider      text,
    error_text          text,
    sent_by_user_id     uuid,
    metadata            jsonb,
    sent_at             timestamptz,
    delivered_at        timestamptz,
    failed_at           timestamptz,
    created_at          timestamptz NOT NULL CHECK (created_at = uuid7_time(id)),
    updated_at          timestamptz NOT NULL,
    PRIMARY KEY (id, created_at),
    UNIQUE (group_message_id, contact_id, created_at)
) PARTITION BY RANGE (created_at);
-- Lists only. All messages of a send share created_at, so the pipeline, which
-- finds rows by id, must never walk this index; on a young table its statistics
-- say otherwise. Lists repeat the predicate, which is always true; the pipeline
-- does not, so the planner cannot choose it there.
CREATE INDEX messages_listed ON messages (account_id, created_at, id) WHERE direction <> 'none';
CREATE INDEX messages_failed ON messages (account_id, failed_at) WHERE failed_at IS NOT NULL;

-- +goose StatementBegin
-- messages_upkeep makes the partitions of this month and of the next ones.
CREATE FUNCTION messages_upkeep(ahead_months int) RETURNS int
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
            EXECUTE format('CREATE TABLE %I PARTITION OF messages FOR VALUES FROM (%L) TO (%L) WITH (fillfactor = 50, '
                'autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05)', name,
                (month + make_interval(months => i))::timestamp AT TIME ZONE 'UTC',
                (month + make_interval(months => i + 1))::timestamp AT TIME ZONE 'UTC');
            made := made + 1;
        END IF;
    END LOOP;
    RETURN made;
END $$;
-- +goose StatementEnd
SELECT messages_upkeep(3);

CREATE TABLE message_attempts (
    account_id uuid NOT NULL,
    message_id uuid NOT NULL,
    attempt    int NOT NULL,
    outcome    text NOT NULL,
    class      text NOT NULL,
    code       text NOT NULL DEFAULT '',
    text       text NOT NULL DEFAULT '',
    created_at timestamptz NOT NULL
);
CREATE INDEX message_attempts_message ON message_attempts (account_id, message_id);

CREATE TABLE suppressions (
    account_id   uuid NOT NULL,
    channel_type text NOT NULL,
    address      text NOT NULL,
    reason       text NOT NULL,
    created_at   timestamptz NOT NULL,
    PRIMARY KEY (account_id, channel_type, address)
);

-- Queue tables: ids and times only, no tenant policy.
CREATE TABLE fanout_jobs (
    group_message_id uuid PRIMARY KEY,
    account_id       uuid NOT NULL,
    cursor           uuid,
    epoch            bigint NOT NULL DEFAULT 0,
    lease_until      timestamptz,
    not_before       timestamptz NOT NULL,
    created_at       timestamptz NOT NULL
);
CREATE INDEX fanout_jobs_due ON fanout_jobs (not_before);

CREATE TABLE dispatch_chunks (
    id               uuid PRIMARY KEY,
    account_id       uuid NOT NULL,
    channel_id       uuid NOT NULL,
    channel_type     text NOT NULL,
    group_message_id uuid,
    lane             text NOT NULL CHECK (lane IN ('bulk', 'transactional')),
    n                int NOT NULL CHECK (n BETWEEN 1 AND 500),
    message_ids      uuid[] NOT NULL,
    first_created_at timestamptz NOT NULL,
    last_created_at  timestamptz NOT NULL,
    calling_upto     int NOT NULL DEFAULT 0,
    epoch            bigint NOT NULL DEFAULT 0,
    lease_until      timestamptz,
    not_before       timestamptz NOT NULL,
    vtime            bigint NOT NULL DEFAULT 0,
    state            text NOT NULL DEFAULT 'ready' CHECK (state IN ('ready', 'leased')),
    created_at       timestamptz NOT NULL
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 200, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX dispatch_chunks_ready ON dispatch_chunks (lane, vtime) WHERE state = 'ready';
CREATE INDEX dispatch_chunks_leased ON dispatch_chunks (lease_until) WHERE state = 'leased';
CREATE INDEX dispatch_chunks_group ON dispatch_chunks (group_message_id) WHERE group_message_id IS NOT NULL;
CREATE INDEX dispatch_chunks_channel ON dispatch_chunks (channel_id);

CREATE TABLE message_due (
    message_id       uuid PRIMARY KEY,
    account_id       uuid NOT NULL,
    channel_id       uuid NOT NULL,
    channel_type     text NOT NULL,
    group_message_id uuid,
    lane             text NOT NULL,
    due_at           timestamptz NOT NULL
);
CREATE INDEX message_due_at ON message_due (due_at);
CREATE INDEX message_due_group ON message_due (group_message_id) WHERE group_message_id IS NOT NULL;

-- Start-time fair queueing: where each account stands in its lane, and the lane.
CREATE TABLE lane_accounts (
    lane         text NOT NULL,
    channel_type text NOT NULL,
    account_id   uuid NOT NULL,
    finish       bigint NOT NULL,
    PRIMARY KEY (lane, channel_type, account_id)
);
CREATE TABLE lane_clocks (
    lane         text NOT NULL,
    channel_type text NOT NULL,
    vtime        bigint NOT NULL,
    PRIMARY KEY (lane, channel_type)
);
-- Generic cell rate algorithm: the theoretical arrival time of each key.
CREATE TABLE channel_rates (
    key text PRIMARY KEY,
    tat timestamptz NOT NULL
);

-- The second net.
-- +goose StatementBegin
DO $$
DECLARE
    t text;
BEGIN
    FOREACH t IN ARRAY ARRAY['channels', 'group_messages', 'group_message_skips', 'messages', 'message_attempts', 'suppressions'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', t);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', t);
        EXECUTE format('CREATE POLICY tenant ON %I USING (account_id = ANY (app_accounts()))', t);
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %I TO turumba_api, turumba_worker', t);
    END LOOP;
END $$;
-- +goose StatementEnd
GRANT SELECT, INSERT, UPDATE, DELETE ON templates TO turumba_api, turumba_worker;
GRANT SELECT, INSERT, UPDATE, DELETE ON fanout_jobs, dispatch_chunks, message_due, lane_accounts, lane_clocks, channel_rates TO turumba_worker;
-- The API starts work and never takes it.
GRANT INSERT ON fanout_jobs, dispatch_chunks TO turumba_api;
-- Reads show `sending` while a chunk has called past a message.
GRANT SELECT (id, channel_id, group_message_id, calling_upto, state, not_before) ON dispatch_chunks TO turumba_api;
-- A cancelled send and a mended channel need not wait for their time.
GRANT UPDATE (not_before) ON dispatch_chunks TO turumba_api;
GRANT SELECT (group_message_id, due_at), UPDATE (due_at) ON message_due TO turumba_api;
