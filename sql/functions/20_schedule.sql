-- In: a schedule in the syntax of cron. Out: jobs of pg_cron, and how they ran.

CREATE OR REPLACE FUNCTION _deal_sync.next_run(schedule text, after timestamptz, zone text) RETURNS timestamptz
LANGUAGE plpython3u STABLE STRICT
SET search_path = pg_catalog, pg_temp
SET datestyle = 'ISO, YMD'
AS $$
from neo4j_deals import entry
return entry.next_run(plpy, schedule, after, zone)
$$;
COMMENT ON FUNCTION _deal_sync.next_run(text, timestamptz, text) IS 'when a schedule of pg_cron fires next';

-- With the owner's rights: only superusers see the settings of pg_cron and the type of its process. The extension
-- cannot require pg_cron, which can be in only one database of the server, so nothing here names its objects before
-- they are known to be its own.
CREATE OR REPLACE FUNCTION _deal_sync.cron_facts(
    OUT home text, OUT version numeric, OUT zone text, OUT has_launcher boolean, OUT too_few text, OUT at_once integer
)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT
        current_setting('cron.database_name', true),
        (
            SELECT substring(e.extversion FROM E'^[0-9]+\\.[0-9]+')::numeric
            FROM pg_extension AS e
            INNER JOIN pg_depend AS d ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid
            WHERE
                e.extname = 'pg_cron' AND d.deptype = 'e'
                AND d.classid = 'pg_class'::regclass AND d.objid = to_regclass('cron.job')
        ),
        coalesce(nullif(current_setting('cron.timezone', true), ''), 'GMT'),
        EXISTS (SELECT FROM pg_stat_activity AS a WHERE a.backend_type = 'pg_cron launcher'),
        l.setting,
        l.jobs
    FROM (
        SELECT 'cron.max_running_jobs', current_setting('cron.max_running_jobs', true)::integer
        UNION ALL
        SELECT -- the launchers of pg_cron and of logical replication are workers, too
            'max_worker_processes', current_setting('max_worker_processes')::integer - 2
        WHERE current_setting('cron.use_background_workers', true)::boolean
        UNION ALL
        SELECT
            'max_connections',
            current_setting('max_connections')::integer - current_setting('superuser_reserved_connections')::integer
        WHERE NOT current_setting('cron.use_background_workers', true)::boolean
        ORDER BY 2
        LIMIT 1
    ) AS l (setting, jobs)
$$;
COMMENT ON FUNCTION _deal_sync.cron_facts() IS
'the database that pg_cron runs in (NULL: the server does not load it), its version in this database (NULL: none), its '
'time zone, whether the process that starts its jobs runs, and how many can run at once (at_once), by which setting '
'(too_few)';

-- pg_cron 1.4 cuts a name at 63 bytes: what distinguishes jobs comes before the database's name, which may be as long.
CREATE OR REPLACE FUNCTION _deal_sync.job_name(
    tenant uuid, is_nightly boolean DEFAULT FALSE, number integer DEFAULT 1
) RETURNS name
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT concat_ws(
        ' ', 'deal_sync', replace(tenant::text, '-', ''), CASE WHEN is_nightly THEN 'nightly' END,
        'job ' || nullif(number, 1), current_database()
    )::name
$$;
COMMENT ON FUNCTION _deal_sync.job_name(uuid, boolean, integer) IS
'the name of a job of pg_cron; number: of several that sync all tenants';

-- With the owner's rights: pg_cron shows a job to its owner only, but a monitor must see the next run. Only jobs with
-- the names that schedule() gives are shown, and no commands. What the server returned for a run may contain
-- application data: it is shown to members of the job's owner only.
CREATE OR REPLACE FUNCTION _deal_sync.scheduled_jobs(
    OUT job_id bigint, OUT job text, OUT tenant_id uuid, OUT task text, OUT owner name, OUT schedule text,
    OUT active boolean, OUT next_run timestamptz, OUT last_run timestamptz, OUT last_status text, OUT last_message text
) RETURNS SETOF record
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    facts CONSTANT record := _deal_sync.cron_facts();
BEGIN
    IF facts.version IS NULL THEN
        RETURN;
    END IF;
    FOR job_id, job, owner, schedule, active, last_run, last_status, last_message IN EXECUTE $jobs$
        SELECT
            j.jobid, j.jobname, j.username, j.schedule, j.active, d.start_time, d.status,
            CASE WHEN EXISTS (
                SELECT FROM pg_roles AS r WHERE r.rolname = j.username AND pg_has_role(session_user, r.oid, 'MEMBER')
            ) THEN d.return_message END
        FROM cron.job AS j
        LEFT JOIN LATERAL (
            SELECT r.* FROM cron.job_run_details AS r WHERE r.jobid = j.jobid ORDER BY r.runid DESC LIMIT 1
        ) AS d ON true
        WHERE j.database = current_database() AND starts_with(j.jobname, 'deal_sync ')
        ORDER BY j.jobname
        $jobs$
    LOOP
        tenant_id := _deal_sync.to_uuid(substring(job FROM E'^deal_sync ([0-9a-f]{32}) '));
        CONTINUE WHEN job NOT IN (
            _deal_sync.job_name(tenant_id),
            _deal_sync.job_name(tenant_id, is_nightly => true),
            _deal_sync.job_name(NULL, number => substring(job FROM E'^deal_sync job ([0-9]{1,2}) ')::integer)
        );
        task := CASE WHEN job = _deal_sync.job_name(tenant_id, true) THEN 'full run and reconcile' ELSE 'sync' END;
        BEGIN
            next_run := CASE WHEN active THEN _deal_sync.next_run(schedule, now(), facts.zone) END;
        EXCEPTION
            WHEN invalid_parameter_value THEN
                next_run := NULL; -- somebody has altered the job's schedule to one that never fires
        END;
        RETURN NEXT;
    END LOOP;
END
$$;
COMMENT ON FUNCTION _deal_sync.scheduled_jobs() IS 'the rows of deal_sync.schedules';

CREATE OR REPLACE VIEW deal_sync.schedules AS
SELECT
    s.job,
    s.task,
    s.tenant_id,
    s.schedule,
    s.active,
    s.owner,
    s.next_run,
    s.last_run,
    s.last_status,
    s.last_message
FROM _deal_sync.scheduled_jobs() AS s;
COMMENT ON VIEW deal_sync.schedules IS
'the jobs of pg_cron that schedule() has created, when they run next and how their last run ended';
COMMENT ON COLUMN deal_sync.schedules.job IS 'name of the job';
COMMENT ON COLUMN deal_sync.schedules.task IS 'sync, or full run and reconcile';
COMMENT ON COLUMN deal_sync.schedules.tenant_id IS 'the tenant; NULL for all tenants';
COMMENT ON COLUMN deal_sync.schedules.schedule IS 'when it runs, in the syntax of cron';
COMMENT ON COLUMN deal_sync.schedules.active IS 'whether pg_cron runs it';
COMMENT ON COLUMN deal_sync.schedules.owner IS 'the role that it runs as';
COMMENT ON COLUMN deal_sync.schedules.next_run IS 'when it runs next; NULL if it is not active';
COMMENT ON COLUMN deal_sync.schedules.last_run IS 'when its last run began';
COMMENT ON COLUMN deal_sync.schedules.last_status IS 'how that run ended, as in cron.job_run_details';
COMMENT ON COLUMN deal_sync.schedules.last_message IS
'what the server returned for that run; NULL unless your role is a member of the job''s owner';

CREATE OR REPLACE FUNCTION _deal_sync.check_cron(argument text, job text, schedule text, command text) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    facts CONSTANT record := _deal_sync.cron_facts();
    error _deal_sync.error;
BEGIN
    BEGIN
        PERFORM _deal_sync.next_run(schedule, now(), facts.zone);
    EXCEPTION
        WHEN invalid_parameter_value THEN
            GET STACKED DIAGNOSTICS
                error.code := RETURNED_SQLSTATE, error.message := MESSAGE_TEXT, error.detail := PG_EXCEPTION_DETAIL,
                error.hint := PG_EXCEPTION_HINT;
            error := _deal_sync.as_meant(error);
            error.message := format('argument "%s": %s', argument, error.message);
            error := _deal_sync.raise_again(error);
    END;
    IF facts.home IS NULL THEN
        RAISE EXCEPTION 'pg_cron is not loaded by this server' USING
            ERRCODE = 'object_not_in_prerequisite_state',
            DETAIL = 'deal_sync.schedule() requires it; any other scheduler that can run SQL works as well.',
            HINT = format(
                'Install it, set shared_preload_libraries = ''pg_cron'' and cron.database_name = %L in postgresql.conf,'
                ' restart the server, and CREATE EXTENSION pg_cron;',
                current_database()
            );
    ELSIF facts.home <> current_database() THEN
        RAISE EXCEPTION 'pg_cron runs in database "%", not in "%"', facts.home, current_database() USING
            ERRCODE = 'object_not_in_prerequisite_state',
            HINT = format(
                'In database %I: SELECT cron.schedule_in_database(%L, %L, %L, %L);'
                ' or set cron.database_name = %L in postgresql.conf and restart.',
                facts.home, job, schedule, command, current_database(), current_database()
            );
    ELSIF facts.version IS NULL THEN
        RAISE EXCEPTION 'extension "pg_cron" is not installed in this database' USING
            ERRCODE = 'object_not_in_prerequisite_state',
            HINT = 'CREATE EXTENSION pg_cron;';
    ELSIF NOT has_schema_privilege('cron', 'USAGE') THEN
        RAISE EXCEPTION 'permission denied for schema "cron"' USING
            ERRCODE = 'insufficient_privilege',
            HINT = format('GRANT USAGE ON SCHEMA cron TO %s;', quote_ident(current_user));
    ELSIF schedule ~* 'seconds?' AND facts.version < 1.5 THEN
        RAISE EXCEPTION 'pg_cron % does not support schedules in seconds', facts.version USING
            ERRCODE = 'feature_not_supported',
            HINT = 'Use ''* * * * *'', or pg_cron 1.5 or newer.';
    ELSIF schedule ~ E'\\$' AND facts.version < 1.5 THEN
        RAISE EXCEPTION 'pg_cron % does not support $ (last day of the month)', facts.version USING
            ERRCODE = 'feature_not_supported',
            HINT = 'Use pg_cron 1.5 or newer.';
    END IF;
END
$$;
COMMENT ON FUNCTION _deal_sync.check_cron(text, text, text, text) IS
'raises if pg_cron cannot run a schedule in this database; argument: the one of schedule() that it came in';

CREATE OR REPLACE FUNCTION _deal_sync.unschedule_job(job text) RETURNS integer
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    removed integer;
BEGIN
    IF (_deal_sync.cron_facts()).version IS NULL THEN
        RETURN 0;
    END IF;
    EXECUTE 'SELECT count(cron.unschedule(j.jobid)) FROM cron.job AS j WHERE j.jobname = $1' INTO removed USING job;
    RETURN removed;
END
$$;
COMMENT ON FUNCTION _deal_sync.unschedule_job(text) IS
'removes a job that the caller owns; returns how many there were';

CREATE OR REPLACE FUNCTION _deal_sync.warn_of_too_few(jobs bigint) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    facts CONSTANT record := _deal_sync.cron_facts();
BEGIN
    IF facts.at_once < jobs THEN
        RAISE WARNING 'pg_cron cannot run % jobs at the same time', jobs USING
            DETAIL = format('%s lets it run %s, and other jobs need some, too.', facts.too_few, facts.at_once),
            HINT = format(
                'ALTER SYSTEM SET %s = %s; then restart the server.',
                facts.too_few, current_setting(facts.too_few)::integer + jobs - facts.at_once
            );
    END IF;
END
$$;
COMMENT ON FUNCTION _deal_sync.warn_of_too_few(bigint) IS
'warns if a setting of the server does not let so many jobs of pg_cron run at the same time';

CREATE OR REPLACE FUNCTION deal_sync.schedule(
    cron text, tenant uuid DEFAULT NULL, nightly text DEFAULT '17 2 * * *', jobs integer DEFAULT 1
) RETURNS SETOF deal_sync.schedules
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    most CONSTANT integer := 32; -- the default of cron.max_running_jobs
    names text[] := ARRAY[_deal_sync.job_name(tenant, is_nightly => true)::text];
    named CONSTANT text := CASE WHEN tenant IS NOT NULL THEN format('tenant => %L', tenant) END;
    shared CONSTANT text := CASE WHEN jobs > 1 THEN 'shared => true' END;
    at record;
    others text;
BEGIN
    IF jobs IS NULL OR jobs NOT BETWEEN 1 AND most THEN
        RAISE EXCEPTION 'argument "jobs" must be between 1 and %', most USING
            ERRCODE = 'invalid_parameter_value',
            HINT = 'SELECT * FROM deal_sync.schedule(''*/5 * * * *'', jobs => 4);';
    ELSIF jobs > 1 AND tenant IS NOT NULL THEN
        RAISE EXCEPTION 'the sync of one tenant is one job' USING
            ERRCODE = 'invalid_parameter_value',
            HINT = 'Leave out argument "jobs", or argument "tenant".';
    END IF;
    IF cron IS NULL THEN
        RAISE EXCEPTION 'deal_sync.schedule requires a schedule' USING
            ERRCODE = 'null_value_not_allowed',
            HINT = 'SELECT * FROM deal_sync.schedule(''*/5 * * * *'');'
                ' to remove the jobs, SELECT deal_sync.unschedule();';
    ELSIF tenant IS NOT NULL AND NOT _deal_sync.tenant_exists(tenant) THEN
        PERFORM _deal_sync.raise_unknown(tenant);
    END IF;
    FOR at IN
        SELECT
            'cron' AS argument, _deal_sync.job_name(tenant, number => n.number)::text AS name,
            CASE WHEN n.number <= jobs THEN cron END AS schedule,
            format('CALL deal_sync.sync_all(%s)', concat_ws(', ', 'quiet => true', named, shared)) AS command
        FROM generate_series(1, CASE WHEN tenant IS NULL THEN most ELSE 1 END) AS n (number)
        UNION ALL
        SELECT 'nightly', names[1], nightly, format('CALL deal_sync.nightly(%s)', concat(named))
    LOOP
        names := names || at.name;
        IF at.schedule IS NULL THEN
            PERFORM _deal_sync.unschedule_job(at.name);
        ELSE
            PERFORM _deal_sync.check_cron(at.argument, at.name, at.schedule, at.command);
            EXECUTE 'SELECT cron.schedule($1, $2, $3)' USING at.name, at.schedule, at.command;
        END IF;
    END LOOP;
    PERFORM _deal_sync.warn_of_too_few(jobs + (nightly IS NOT NULL)::integer);
    IF NOT (_deal_sync.cron_facts()).has_launcher THEN
        RAISE WARNING 'the pg_cron launcher is not running, so no job starts' USING
            DETAIL = 'The launcher ends if the database that it is connected to is dropped, and pg_cron before 1.6.1'
                ' does not restart it.',
            HINT = 'Restart the server.';
    END IF;
    IF (SELECT r.rolsuper OR r.rolbypassrls FROM pg_roles AS r WHERE r.rolname = current_user) THEN
        RAISE WARNING 'the jobs run as role "%", which bypasses row-level security', current_user USING
            HINT = 'SELECT deal_sync.unschedule(); then SET ROLE to the role that is to run the sync,'
                ' and schedule again.';
    END IF;
    SELECT string_agg(DISTINCT quote_ident(s.owner), ', ') INTO others
    FROM deal_sync.schedules AS s
    WHERE s.job = ANY (names) AND s.owner <> current_user;
    IF others IS NOT NULL THEN
        RAISE WARNING 'the same sync is also scheduled by another role: %', others USING
            HINT = 'One of them is enough: SET ROLE to the other role, and SELECT deal_sync.unschedule();';
    END IF;
    RETURN QUERY SELECT s.* FROM deal_sync.schedules AS s WHERE s.job = ANY (names) AND s.owner = current_user;
END
$$;
COMMENT ON FUNCTION deal_sync.schedule(text, uuid, text, integer) IS
'schedules jobs of pg_cron, which run as the calling role: one syncs all tenants, or one tenant; another does a full '
'run and a reconcile every night (nightly NULL: none). jobs: so many sync all tenants, and share them. They replace '
'the jobs of an earlier call';

CREATE OR REPLACE FUNCTION deal_sync.unschedule(tenant uuid DEFAULT NULL) RETURNS integer
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(sum(_deal_sync.unschedule_job(s.job)), 0)
    FROM deal_sync.schedules AS s
    WHERE s.tenant_id = unschedule.tenant OR unschedule.tenant IS NULL
$$;
COMMENT ON FUNCTION deal_sync.unschedule(uuid) IS
'removes the jobs of a tenant, or all that schedule() has created in this database; returns how many';
