-- What migrations stand on. Each step looks before it acts: a login without the
-- right to create roles may migrate a database that somebody prepared for it.
DO $$
DECLARE
    role_name text;
    extension text;
BEGIN
    -- Two processes that prepare the same database take turns.
    PERFORM pg_advisory_xact_lock(7319001);

    FOREACH role_name IN ARRAY ARRAY['turumba_owner', 'turumba_api', 'turumba_worker'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role_name) THEN
            EXECUTE format('CREATE ROLE %I NOLOGIN NOBYPASSRLS', role_name);
        END IF;
        IF EXISTS (SELECT FROM pg_roles WHERE rolname = role_name AND (rolsuper OR rolbypassrls)) THEN
            RAISE EXCEPTION 'role % bypasses row-level security: ALTER ROLE % NOSUPERUSER NOBYPASSRLS', role_name, role_name;
        END IF;
        IF NOT pg_has_role(current_user, role_name, 'MEMBER') THEN
            EXECUTE format('GRANT %I TO CURRENT_USER', role_name);
        END IF;
    END LOOP;

    FOREACH extension IN ARRAY ARRAY['pg_trgm', 'citext', 'btree_gin'] LOOP
        IF NOT EXISTS (SELECT FROM pg_extension WHERE extname = extension) THEN
            EXECUTE format('CREATE EXTENSION %I', extension);
        END IF;
    END LOOP;

    IF (SELECT nspowner <> 'turumba_owner'::regrole FROM pg_namespace WHERE nspname = 'public') THEN
        ALTER SCHEMA public OWNER TO turumba_owner;
    END IF;
    IF NOT (has_schema_privilege('turumba_api', 'public', 'USAGE') AND has_schema_privilege('turumba_worker', 'public', 'USAGE')) THEN
        GRANT USAGE ON SCHEMA public TO turumba_api, turumba_worker;
    END IF;
    IF NOT has_database_privilege('turumba_owner', current_database(), 'CREATE') THEN
        EXECUTE format('GRANT CREATE ON DATABASE %I TO turumba_owner', current_database());
    END IF;
END
$$;
