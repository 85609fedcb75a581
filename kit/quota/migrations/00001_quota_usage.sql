-- +goose Up
-- What accounts use of their quotas. The count of one is spread over slots, so that
-- those who add to it need not wait for each other's commit.
CREATE TABLE quota_usage (
    account_id uuid   NOT NULL,
    name       text   NOT NULL,
    period     date   NOT NULL, -- the day, in UTC; -infinity for a quota that never begins anew
    slot       int    NOT NULL,
    used       bigint NOT NULL, -- below 0 where a slot took back what another one counted
    PRIMARY KEY (account_id, name, period, slot)
) WITH (fillfactor = 50);
ALTER TABLE quota_usage ENABLE ROW LEVEL SECURITY;
ALTER TABLE quota_usage FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON quota_usage
    USING (account_id = ANY (string_to_array(nullif(current_setting('app.accounts', true), ''), ',')::uuid[]));
GRANT SELECT, INSERT, UPDATE, DELETE ON quota_usage TO turumba_api, turumba_worker;

-- quota_take adds n to a count unless it would be more than most then; 0 is no limit. It
-- returns NULL, or what is used where that is too much. The locks last until the
-- transaction ends: whatever is added is counted with it, or not at all.
--
-- Far from the limit it takes one slot. Each of the others has at most one transaction
-- that is not committed yet, of at most small, so no more than that can be missing in
-- the sum. Near the limit it takes all slots, in order, and the sum is exact. Each
-- statement here sees what was committed before it (READ COMMITTED), so the sum is
-- younger than the lock.
-- +goose StatementBegin
CREATE FUNCTION quota_take(of_account uuid, of_name text, of_period date, n bigint, most bigint) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    slots CONSTANT int    := 16;
    small CONSTANT bigint := 500;
    room  CONSTANT bigint := most - (slots - 1) * small;
    mine  CONSTANT int    := floor(random() * slots);
    total bigint;
    found_slots int;
BEGIN
    IF most = 0 THEN
        PERFORM quota_add(of_account, of_name, of_period, mine, n);
        RETURN NULL;
    END IF;
    SELECT coalesce(sum(used), 0), count(*) INTO total, found_slots
        FROM quota_usage WHERE account_id = of_account AND name = of_name AND period = of_period;
    IF n <= small AND total + n <= room THEN
        BEGIN
            PERFORM quota_add(of_account, of_name, of_period, mine, n);
            SELECT sum(used) INTO total FROM quota_usage WHERE account_id = of_account AND name = of_name AND period = of_period;
            IF total <= room THEN
                RETURN NULL;
            END IF;
            RAISE SQLSTATE 'QU001'; -- others were faster: let go of the slot
        EXCEPTION WHEN SQLSTATE 'QU001' THEN
            NULL;
        END;
    END IF;
    IF found_slots < slots THEN
        INSERT INTO quota_usage SELECT of_account, of_name, of_period, s, 0 FROM generate_series(0, slots - 1) AS s ORDER BY s ON CONFLICT DO NOTHING;
    END IF;
    PERFORM FROM quota_usage WHERE account_id = of_account AND name = of_name AND period = of_period ORDER BY slot FOR UPDATE;
    SELECT sum(used) INTO total FROM quota_usage WHERE account_id = of_account AND name = of_name AND period = of_period;
    IF total + n > most THEN
        RETURN total;
    END IF;
    PERFORM quota_add(of_account, of_name, of_period, mine, n);
    RETURN NULL;
END $$;

-- quota_add adds n to a slot. The first of a day removes the days that are over; two
-- stay, for what is given back late.
CREATE FUNCTION quota_add(of_account uuid, of_name text, of_period date, of_slot int, n bigint) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    fresh boolean;
BEGIN
    INSERT INTO quota_usage AS u (account_id, name, period, slot, used) VALUES (of_account, of_name, of_period, of_slot, n)
        ON CONFLICT (account_id, name, period, slot) DO UPDATE SET used = u.used + n
        RETURNING xmax = 0 INTO fresh;
    IF fresh AND isfinite(of_period) THEN
        DELETE FROM quota_usage WHERE account_id = of_account AND name = of_name AND period < of_period - 2;
    END IF;
END $$;
-- +goose StatementEnd
