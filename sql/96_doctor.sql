-- In: the catalog, the server's Python, the graph and the run log. Out: one row a check: name, ok, detail, hint.

-- Without the package: it may be what is missing.
CREATE FUNCTION _deal_sync.python_version(OUT number integer, OUT said text)
LANGUAGE plpython3u
SET search_path = pg_catalog, pg_temp
AS $$
import sys
return sys.version_info.major * 100 + sys.version_info.minor, f"{sys.version.split()[0]} of {sys.prefix}"
$$;
COMMENT ON FUNCTION _deal_sync.python_version() IS 'the Python that this server runs, 311 for 3.11, and where it lies';

CREATE FUNCTION _deal_sync.package_versions() RETURNS text
LANGUAGE plpython3u
SET search_path = pg_catalog, pg_temp
AS $$
from neo4j_deals import entry
return entry.package_versions()
$$;
COMMENT ON FUNCTION _deal_sync.package_versions() IS 'the Python package, what it needs, and where it lies';

-- With the owner's rights: the owner's user mapping is the one that the sync uses, and only a superuser may ask where the data lies.
-- No text comes in.
CREATE FUNCTION _deal_sync.examine_graph(
    is_mapped boolean, OUT name text, OUT ok boolean, OUT detail text, OUT hint text
) RETURNS SETOF record
LANGUAGE plpython3u SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
from neo4j_deals import entry
return entry.examine_graph(plpy, is_mapped)
$$;
COMMENT ON FUNCTION _deal_sync.examine_graph(boolean) IS
'the checks of doctor() that need the owner''s user mapping, or the server''s files';

CREATE FUNCTION _deal_sync.check_settings(OUT ok boolean, OUT detail text, OUT hint text)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    known record;
    wrong text[] := '{}';
    remedies text[] := '{}';
    said text;
    kept record;
BEGIN
    FOR known IN SELECT s.name, count(*) OVER () AS many FROM deal_sync.settings() AS s LOOP
        BEGIN
            detail := format('%s settings are as they may be', known.many);
            PERFORM _deal_sync.setting(known.name);
        EXCEPTION
            WHEN invalid_parameter_value THEN
                GET STACKED DIAGNOSTICS said := MESSAGE_TEXT;
                wrong := wrong || said;
                remedies := remedies || format('RESET deal_sync.%I;', known.name);
        END;
    END LOOP;

    -- What ALTER DATABASE and ALTER ROLE keep: a name that nobody reads, and where a bad value comes from.
    FOR kept IN
        SELECT
            split_part(c.setting, '=', 1) AS name,
            CASE
                WHEN s.setrole = 0 THEN format('ALTER DATABASE %I', current_database())
                WHEN s.setdatabase = 0 THEN format('ALTER ROLE %s', s.setrole::regrole)
                ELSE format('ALTER ROLE %s IN DATABASE %I', s.setrole::regrole, current_database())
            END AS place
        FROM pg_db_role_setting AS s
        CROSS JOIN unnest(s.setconfig) AS c (setting)
        WHERE
            c.setting LIKE 'deal\_sync.%'
            AND s.setdatabase IN (0, (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database()))
    LOOP
        IF format('RESET %s;', kept.name) = ANY (remedies) THEN
            remedies := remedies || format('%s RESET %s;', kept.place, kept.name);
        ELSIF NOT EXISTS (SELECT FROM deal_sync.settings() AS s WHERE 'deal_sync.' || s.name = kept.name) THEN
            wrong := wrong || format('unknown setting "%s"', kept.name);
            remedies := remedies || format('%s RESET %s;', kept.place, kept.name);
        END IF;
    END LOOP;

    ok := cardinality(wrong) = 0;
    IF NOT ok THEN
        detail := array_to_string(wrong, '; ');
        hint := array_to_string(remedies, ' ');
    END IF;
END
$$;
COMMENT ON FUNCTION _deal_sync.check_settings() IS 'whether the settings in this session have values that may be';

CREATE FUNCTION _deal_sync.check_multicorn(OUT ok boolean, OUT detail text, OUT hint text)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    python CONSTANT integer := (SELECT p.number FROM _deal_sync.python_version() AS p);
    available CONSTANT text := (SELECT e.default_version FROM pg_available_extensions AS e WHERE e.name = 'multicorn');
    wrapper CONSTANT record := (SELECT w FROM pg_foreign_data_wrapper AS w WHERE w.fdwname = 'neo4j');
    is_set CONSTANT boolean := wrapper.fdwhandler <> 0;
BEGIN
    ok := false;
    IF wrapper.fdwvalidator <> '_deal_sync.validator'::regproc THEN
        detail := format('the wrapper neo4j has the validator %s, which may let a user mapping load any code', wrapper.fdwvalidator::regproc);
        hint := 'ALTER FOREIGN DATA WRAPPER neo4j VALIDATOR _deal_sync.validator;';
    ELSIF is_set AND python >= 312 THEN
        detail := format('with Python %s.%s its handler crashes the server', python / 100, python % 100);
        hint := 'SELECT deal_sync.detach();';
    ELSIF is_set AND available IS NULL THEN
        detail := 'the handler is set, and Multicorn2 is not installed any more';
        hint := 'SELECT deal_sync.detach();';
    ELSIF is_set THEN
        ok := true;
        detail := format('%s answers a SELECT on the foreign tables', available);
    ELSIF available IS NULL OR python >= 312 THEN
        ok := true;
        detail := 'not used: deal_sync.scan() reads the foreign tables';
    ELSE
        detail := format('%s is installed and not used, as after a restore or detach()', available);
        hint := coalesce(
            (
                SELECT format('SELECT deal_sync.attach(%L, %L);', s.srvname, c.relnamespace::regnamespace::text)
                FROM pg_foreign_table AS ft
                INNER JOIN pg_class AS c ON c.oid = ft.ftrelid
                INNER JOIN pg_foreign_server AS s ON s.oid = ft.ftserver
                WHERE s.srvfdw = wrapper.oid AND _deal_sync.options_of(ft.ftoptions) ->> 'kind' = 'deal'
                LIMIT 1
            ),
            'SELECT deal_sync.attach();'
        );
    END IF;
END
$$;
COMMENT ON FUNCTION _deal_sync.check_multicorn() IS
'whether Multicorn2 is used where it is safe, and only there';

CREATE FUNCTION _deal_sync.check_foreign_tables(OUT ok boolean, OUT detail text, OUT hint text)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    server name;
    said text;
BEGIN
    SELECT min(s.srvname) INTO server
    FROM pg_foreign_server AS s
    INNER JOIN pg_foreign_data_wrapper AS w ON w.oid = s.srvfdw
    WHERE w.fdwname = 'neo4j';
    SELECT string_agg(_deal_sync.mapped(k.kind)::text, ', ') INTO detail FROM (VALUES ('deal'), ('version')) AS k (kind);
    ok := true;
EXCEPTION
    WHEN undefined_object THEN
        GET STACKED DIAGNOSTICS detail := MESSAGE_TEXT, said := PG_EXCEPTION_DETAIL, hint := PG_EXCEPTION_HINT;
        ok := false;
        detail := format('%s: %s', detail, said);
        hint := coalesce(
            (
                SELECT string_agg(DISTINCT format('ALTER %s OWNER TO %s;', o.object, e.extowner::regrole), ' ')
                FROM pg_foreign_table AS ft
                INNER JOIN pg_class AS c ON c.oid = ft.ftrelid
                INNER JOIN pg_foreign_server AS s ON s.oid = ft.ftserver
                INNER JOIN pg_foreign_data_wrapper AS w ON w.oid = s.srvfdw AND w.fdwname = 'neo4j'
                INNER JOIN pg_extension AS e ON e.extname = 'deal_sync'
                CROSS JOIN LATERAL (VALUES
                    (format('FOREIGN TABLE %s', c.oid::regclass), c.relowner), (format('SERVER %I', s.srvname), s.srvowner)
                ) AS o (object, owner)
                INNER JOIN pg_roles AS r ON r.oid = o.owner
                WHERE _deal_sync.options_of(ft.ftoptions) ? 'kind' AND NOT r.rolsuper AND r.oid <> e.extowner
            ),
            CASE WHEN server IS NOT NULL THEN format('SELECT deal_sync.attach(%L);', server) END,
            hint
        );
END
$$;
COMMENT ON FUNCTION _deal_sync.check_foreign_tables() IS 'whether foreign tables map deals and versions';

-- A table that has policies gets one for the role alone: a further one for everybody would show others what theirs hide from them.
CREATE FUNCTION _deal_sync.check_row_security(role regrole, OUT ok boolean, OUT detail text, OUT hint text)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    deals CONSTANT regclass := _deal_sync.application_table('deal', 'target');
    own CONSTANT text := 'deal_sync_' || (SELECT r.rolname FROM pg_roles AS r WHERE r.oid = role);
BEGIN
    SELECT
        coalesce(string_agg(
            CASE WHEN u.is_on THEN format('%s has no policy for %s by role "%s"', u.relation, u.commands, role) ELSE format('%s has none', u.relation) END,
            '; ' ORDER BY u.relation
        ), 'on, with a policy, on all that the sync writes'),
        string_agg(
            CASE
                WHEN NOT u.is_on
                    THEN format('ALTER TABLE %1$s ENABLE ROW LEVEL SECURITY; ALTER TABLE %1$s FORCE ROW LEVEL SECURITY;', u.relation)
                ELSE ''
            END
            || CASE
                WHEN u.commands IS NOT NULL
                    THEN format(
                        ' CREATE POLICY %I ON %s%s USING (tenant_id = nullif(current_setting(''app.tenant_id'', true), '''')::uuid);',
                        CASE WHEN u.has_policies THEN own ELSE 'deal_sync_tenant' END, u.relation,
                        CASE WHEN u.has_policies THEN format(' TO %s', role) END
                    )
                ELSE ''
            END,
            ' ' ORDER BY u.relation
        ),
        count(*) = 0
    INTO detail, hint, ok
    FROM (
        SELECT
            t.relation, c.relrowsecurity AS is_on, lacking.commands,
            EXISTS (SELECT FROM pg_policy AS p WHERE p.polrelid = t.relation) AS has_policies
        FROM _deal_sync.target_tables() AS t (relation)
        INNER JOIN pg_class AS c ON c.oid = t.relation
        CROSS JOIN LATERAL (
            SELECT string_agg(d.command, ', ' ORDER BY d.place) AS commands
            FROM (VALUES (1, 'SELECT', 'r'), (2, 'INSERT', 'a'), (3, 'UPDATE', 'w')) AS d (place, command, code)
            WHERE (d.code <> 'w' OR t.relation = deals) AND NOT EXISTS (
                SELECT FROM pg_policy AS p
                WHERE
                    p.polrelid = t.relation AND p.polpermissive AND p.polcmd::text IN ('*', d.code)
                    AND EXISTS (SELECT FROM unnest(p.polroles) AS r (oid) WHERE r.oid = 0 OR pg_has_role(role, r.oid, 'USAGE'))
            )
        ) AS lacking
        WHERE NOT c.relrowsecurity OR lacking.commands IS NOT NULL
    ) AS u;
END
$$;
COMMENT ON FUNCTION _deal_sync.check_row_security(regrole) IS
'whether row-level security is on for the tables that the sync writes, with policies by which the role can';

-- After a transaction that set app.tenant_id locally it is '', and no longer unset. A cast of '' raises; asking does where it is unset.
CREATE FUNCTION _deal_sync.check_policies(OUT ok boolean, OUT detail text, OUT hint text)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    cast_one CONSTANT text := '\(current_setting\((''[^'']+'')::text(?:, (?:true|false))?\)\)::(uuid|integer|bigint)';
    tolerant CONSTANT text := '(nullif(current_setting(\1, true), ''''))::\2';
    bare_one CONSTANT text := 'current_setting\((''[^'']+''::text)(?:, false)?\)';
BEGIN
    SELECT
        coalesce(
            'raises where the setting is '''' or unset: ' || string_agg(format('"%s" of %s', w.polname, w.relation), ', ' ORDER BY w.relation, w.polname),
            'none raises where app.tenant_id is '''' or unset'
        ),
        string_agg(
            format(
                'ALTER POLICY %I ON %s%s%s;', w.polname, w.relation,
                ' USING (' || regexp_replace(regexp_replace(w.qual, cast_one, tolerant, 'g'), bare_one, 'current_setting(\1, true)', 'g') || ')',
                ' WITH CHECK ('
                || regexp_replace(regexp_replace(w.with_check, cast_one, tolerant, 'g'), bare_one, 'current_setting(\1, true)', 'g') || ')'
            ),
            ' ' ORDER BY w.relation, w.polname
        ),
        count(*) = 0
    INTO detail, hint, ok
    FROM (
        SELECT
            t.relation, p.polname, pg_get_expr(p.polqual, p.polrelid) AS qual, pg_get_expr(p.polwithcheck, p.polrelid) AS with_check
        FROM _deal_sync.target_tables() AS t (relation)
        INNER JOIN pg_policy AS p ON p.polrelid = t.relation
    ) AS w
    WHERE concat_ws(' ', w.qual, w.with_check) ~ concat_ws('|', cast_one, bare_one);
END
$$;
COMMENT ON FUNCTION _deal_sync.check_policies() IS
'whether a policy of the tables that the sync writes raises in a session without a tenant';

CREATE FUNCTION _deal_sync.check_role(role regrole, OUT ok boolean, OUT detail text, OUT hint text)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    facts CONSTANT record := (SELECT r FROM pg_roles AS r WHERE r.oid = role);
BEGIN
    ok := NOT facts.rolbypassrls AND NOT facts.rolsuper;
    IF facts.rolsuper THEN
        ok := NULL;
        detail := format('"%s" is a superuser, whom no policy and no right binds', facts.rolname);
        hint := format('look with the scheduler''s role: SELECT * FROM deal_sync.doctor(%L);', coalesce(
            (
                SELECT min(a.grantee::regrole::text)
                FROM pg_proc AS p
                CROSS JOIN LATERAL aclexplode(p.proacl) AS a
                WHERE p.oid = _deal_sync.entry_point() AND a.grantee NOT IN (0, p.proowner)
            ),
            '...'
        ));
    ELSIF facts.rolbypassrls THEN
        detail := format('"%s" bypasses row-level security: it could write into another tenant''s rows', facts.rolname);
        hint := format('ALTER ROLE %s NOBYPASSRLS;', role);
    ELSE
        detail := format('"%s" is bound by row-level security', facts.rolname);
    END IF;
END
$$;
COMMENT ON FUNCTION _deal_sync.check_role(regrole) IS 'whether row-level security binds a role';

CREATE FUNCTION _deal_sync.entry_point() RETURNS regprocedure
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT p.oid::regprocedure
    FROM pg_extension AS e
    INNER JOIN pg_depend AS d ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid
    INNER JOIN pg_proc AS p ON d.classid = 'pg_proc'::regclass AND p.oid = d.objid
    WHERE e.extname = 'deal_sync' AND p.proname = 'sync_deals'
$$;
COMMENT ON FUNCTION _deal_sync.entry_point() IS 'sync_deals, in whichever schema it stands';

CREATE FUNCTION _deal_sync.check_rights(role regrole, OUT ok boolean, OUT detail text, OUT hint text)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    SELECT
        coalesce(
            format('"%s" lacks ', role) || string_agg(format('%s on %s', l.privileges, l.relation), ', ' ORDER BY l.relation),
            format('"%s" may read and write what the sync does', role)
        ),
        string_agg(format('GRANT %s ON %s TO %s;', l.privileges, l.relation, role), ' ' ORDER BY l.relation),
        count(*) = 0
    INTO detail, hint, ok
    FROM _deal_sync.missing_rights(role) AS l;
END
$$;
COMMENT ON FUNCTION _deal_sync.check_rights(regrole) IS
'whether a role has the rights on the application''s tables that the sync needs';

CREATE FUNCTION _deal_sync.check_pg_cron(OUT ok boolean, OUT detail text, OUT hint text)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    facts CONSTANT record := _deal_sync.cron_facts();
BEGIN
    ok := false;
    IF NOT EXISTS (SELECT FROM pg_available_extensions AS e WHERE e.name = 'pg_cron') THEN
        detail := 'not installed: no schedule by deal_sync.schedule(); any other scheduler will do';
        hint := format('install the package postgresql-%s-cron', current_setting('server_version_num')::integer / 10000);
    ELSIF facts.home IS NULL THEN
        detail := 'not loaded';
        hint := 'add pg_cron to shared_preload_libraries in postgresql.conf, and restart the server';
    ELSIF facts.home <> current_database() THEN
        detail := format('it works in database "%s", and this one is "%s"', facts.home, current_database());
        hint := format('ALTER SYSTEM SET cron.database_name = %L; then restart the server', current_database());
    ELSIF facts.version IS NULL THEN
        detail := 'not created in this database';
        hint := 'CREATE EXTENSION pg_cron;';
    ELSE
        ok := true;
        detail := facts.version::text;
    END IF;
END
$$;
COMMENT ON FUNCTION _deal_sync.check_pg_cron() IS 'whether pg_cron works in this database';

-- Dynamic: the schema cron need not be there when this is planned.
CREATE FUNCTION _deal_sync.check_schedule(OUT ok boolean, OUT detail text, OUT hint text)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    no_login boolean;
BEGIN
    IF NOT has_schema_privilege('cron', 'USAGE') THEN
        ok := false;
        detail := format('"%s" may not see the jobs of pg_cron, or make one', current_user);
        hint := format('GRANT USAGE ON SCHEMA cron TO %I;', current_user);
        RETURN;
    END IF;
    EXECUTE format(
        'SELECT string_agg(format(''"%%s" at %%s%%s'', coalesce(j.jobname, j.jobid::text), j.schedule,'
        ' CASE d.status WHEN ''failed'' THEN '' (failed the last time)'' END), '', '' ORDER BY j.jobid),'
        ' NOT coalesce(bool_or(d.status = ''failed''), false), bool_or(d.return_message = ''connection failed'')'
        ' FROM %s AS j LEFT JOIN LATERAL ('
        'SELECT r.status, r.return_message FROM %s AS r WHERE r.jobid = j.jobid AND r.status IN (''succeeded'', ''failed'') ORDER BY r.runid DESC LIMIT 1'
        ') AS d ON true WHERE j.active AND j.database = current_database() AND j.command ~ ''\m(sync_all|nightly|sync_deals)\M''',
        to_regclass('cron.job'), to_regclass('cron.job_run_details')
    )
    INTO detail, ok, no_login;
    IF detail IS NULL THEN
        ok := false;
        detail := 'no job of this role runs the sync';
        hint := 'SELECT deal_sync.schedule(''*/5 * * * *'');';
    ELSIF no_login THEN
        hint := 'pg_cron cannot log in: set cron.use_background_workers = on in postgresql.conf and restart; or let the role in by pg_hba.conf';
    ELSIF NOT ok THEN
        hint := 'SELECT * FROM deal_sync.schedules; says what failed, and deal_sync.tenant_status of which tenant.';
    END IF;
END
$$;
COMMENT ON FUNCTION _deal_sync.check_schedule() IS 'whether pg_cron runs the sync, and did the last time; a role sees its own jobs';

CREATE FUNCTION _deal_sync.check_last_run(OUT ok boolean, OUT detail text, OUT hint text)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    late CONSTANT interval := '1 day';
    last record;
BEGIN
    ok := false;
    IF NOT has_table_privilege('deal_sync.runs', 'SELECT') THEN
        detail := format('"%s" may not read deal_sync.runs', current_user);
        hint := format('SELECT deal_sync.grant_sync(%L);', quote_ident(current_user));
        RETURN;
    END IF;
    SELECT
        count(*) AS tenants,
        count(*) FILTER (WHERE r.status = 'failed') AS failed,
        max(r.started_at) AS started_at,
        (array_agg(r.tenant_id ORDER BY r.status = 'failed' DESC, r.started_at DESC))[1] AS tenant_id,
        (array_agg(r.message ORDER BY r.status = 'failed' DESC, r.started_at DESC))[1] AS message
    INTO last
    FROM (
        SELECT DISTINCT ON (r.tenant_id) r.tenant_id, r.status, r.message, r.started_at
        FROM deal_sync.runs AS r
        WHERE
            r.status <> 'skipped'
            AND NOT EXISTS (SELECT FROM deal_sync.tenant_status AS s WHERE s.tenant_id = r.tenant_id AND s.state = 'unknown')
        ORDER BY r.tenant_id ASC, r.started_at DESC
    ) AS r;

    IF last.tenants = 0 THEN
        detail := 'there was none yet';
        hint := 'SELECT * FROM sync_deals(''...'');';
        RETURN;
    END IF;
    hint := format('SELECT * FROM sync_deals(%L);', last.tenant_id);
    IF last.failed > 0 THEN
        detail := format('tenants for which it failed: %s of %s, the newest: %s', last.failed, last.tenants, last.message);
    ELSIF last.started_at < now() - late THEN
        detail := format('the newest began at %s, more than a day ago', to_char(last.started_at, 'YYYY-MM-DD HH24:MI TZ'));
    ELSE
        ok := true;
        hint := NULL;
        detail := format('none failed, tenants: %s; the newest began at %s', last.tenants, to_char(last.started_at, 'YYYY-MM-DD HH24:MI TZ'));
    END IF;
END
$$;
COMMENT ON FUNCTION _deal_sync.check_last_run() IS
'whether the last run of a tenant failed, or the newest of all is more than a day old';

CREATE FUNCTION _deal_sync.examine(name text, role regrole, OUT ok boolean, OUT detail text, OUT hint text)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    newest text;
BEGIN
    ok := true;
    CASE examine.name
        WHEN 'python' THEN
            SELECT p.number >= 311, p.said INTO ok, detail FROM _deal_sync.python_version() AS p;
            hint := CASE WHEN NOT ok THEN 'PL/Python must run Python 3.11 or newer' END;
        WHEN 'package' THEN
            PERFORM _deal_sync.check_package();
            detail := _deal_sync.package_versions();
        WHEN 'extension' THEN
            SELECT e.extversion, a.default_version INTO detail, newest
            FROM pg_extension AS e
            LEFT JOIN pg_available_extensions AS a ON a.name = e.extname
            WHERE e.extname = 'deal_sync';
            IF newest IS DISTINCT FROM detail THEN
                ok := false;
                detail := format('%s, and the files installed are of %s', detail, coalesce(newest, 'none'));
                hint := 'ALTER EXTENSION deal_sync UPDATE;';
            END IF;
        WHEN 'encoding' THEN
            ok := getdatabaseencoding() = 'UTF8';
            detail := getdatabaseencoding();
            hint := CASE WHEN NOT ok THEN 'use a database made with ENCODING ''UTF8''' END;
        WHEN 'writable' THEN
            PERFORM _deal_sync.check_writable();
            detail := 'no standby server, and transactions may write';
        WHEN 'settings' THEN
            SELECT c.ok, c.detail, c.hint INTO ok, detail, hint FROM _deal_sync.check_settings() AS c;
        WHEN 'multicorn' THEN
            SELECT c.ok, c.detail, c.hint INTO ok, detail, hint FROM _deal_sync.check_multicorn() AS c;
        WHEN 'foreign tables' THEN
            SELECT c.ok, c.detail, c.hint INTO ok, detail, hint FROM _deal_sync.check_foreign_tables() AS c;
        WHEN 'target tables' THEN
            SELECT string_agg(t.relation::text, ', ') INTO detail
            FROM (
                SELECT x.relation FROM _deal_sync.target_tables() AS x (relation)
                UNION ALL
                SELECT _deal_sync.application_table('deal', 'tenants')
            ) AS t;
        WHEN 'target columns' THEN
            PERFORM _deal_sync.check_targets();
            detail := 'each target is there, once, and nothing is left unfilled';
        WHEN 'target types' THEN
            PERFORM _deal_sync.check_source(k.kind) FROM (VALUES ('deal'), ('version')) AS k (kind);
            detail := 'each target can take what the mapping sends there';
        WHEN 'row security' THEN
            SELECT c.ok, c.detail, c.hint INTO ok, detail, hint FROM _deal_sync.check_row_security(role) AS c;
        WHEN 'policies' THEN
            SELECT c.ok, c.detail, c.hint INTO ok, detail, hint FROM _deal_sync.check_policies() AS c;
        WHEN 'role' THEN
            SELECT c.ok, c.detail, c.hint INTO ok, detail, hint FROM _deal_sync.check_role(role) AS c;
        WHEN 'rights on tables' THEN
            SELECT c.ok, c.detail, c.hint INTO ok, detail, hint FROM _deal_sync.check_rights(role) AS c;
        WHEN 'rights on sync' THEN
            ok := NOT EXISTS (
                SELECT FROM _deal_sync.routines_of_sync() AS r (routine)
                INNER JOIN pg_proc AS p ON p.oid = r.routine
                WHERE NOT has_function_privilege(role, r.routine, 'EXECUTE') OR NOT has_schema_privilege(role, p.pronamespace, 'USAGE')
            );
            detail := format('"%s" may %s', role, CASE WHEN ok THEN 'run sync_deals' ELSE 'not run sync_deals, or not all that it calls' END);
            hint := CASE WHEN NOT ok THEN format('SELECT deal_sync.grant_sync(%L);', role) END;
        WHEN 'pg_cron' THEN
            SELECT c.ok, c.detail, c.hint INTO ok, detail, hint FROM _deal_sync.check_pg_cron() AS c;
        WHEN 'schedule' THEN
            SELECT c.ok, c.detail, c.hint INTO ok, detail, hint FROM _deal_sync.check_schedule() AS c;
        WHEN 'last run' THEN
            SELECT c.ok, c.detail, c.hint INTO ok, detail, hint FROM _deal_sync.check_last_run() AS c;
    END CASE;
END
$$;
COMMENT ON FUNCTION _deal_sync.examine(text, regrole) IS
'one check of doctor(), all but those of examine_graph(); what it raises is a finding, too';

-- The graph's checks stand where 'graph' stands; their own order and what they hang on are theirs.
CREATE FUNCTION deal_sync.doctor(role regrole DEFAULT NULL)
RETURNS TABLE (name text, ok boolean, detail text, hint text)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    whose CONSTANT regrole := coalesce(role, quote_ident(current_user)::regrole);
    failed text[] := '{}';
    this record;
    found record;
    lost text;
    code text;
    said text;
    more text;
BEGIN
    FOR this IN
        SELECT c.name, c.needs
        FROM (VALUES
            ('python', '{}'),
            ('package', '{python}'),
            ('extension', '{}'),
            ('encoding', '{}'),
            ('writable', '{}'),
            ('settings', '{}'),
            ('multicorn', '{python}'),
            ('foreign tables', '{}'),
            ('graph', '{package}'),
            ('target tables', '{foreign tables}'),
            ('target columns', '{target tables}'),
            ('target types', '{package,target columns,user mapping}'),
            ('row security', '{target tables}'),
            ('policies', '{target tables}'),
            ('role', '{}'),
            ('rights on tables', '{target tables}'),
            ('rights on sync', '{}'),
            ('pg_cron', '{}'),
            ('schedule', '{pg_cron}'),
            ('last run', '{}')
        ) AS c (name, needs)
    LOOP
        name := this.name;
        hint := NULL;
        lost := (
            SELECT n.need FROM unnest(this.needs::text[]) WITH ORDINALITY AS n (need, place)
            WHERE n.need = ANY (failed) ORDER BY n.place LIMIT 1
        );
        IF lost IS NOT NULL THEN
            ok := NULL;
            detail := format('not checked: %s', lost);
        ELSE
            BEGIN
                IF name = 'graph' THEN
                    FOR found IN SELECT g.* FROM _deal_sync.examine_graph('foreign tables' <> ALL (failed)) AS g LOOP
                        name := found.name;
                        ok := found.ok;
                        detail := found.detail;
                        hint := found.hint;
                        failed := failed || CASE WHEN ok IS NOT TRUE THEN ARRAY[name] END;
                        RETURN NEXT;
                    END LOOP;
                    CONTINUE;
                END IF;
                SELECT e.ok, e.detail, e.hint INTO ok, detail, hint FROM _deal_sync.examine(this.name, whose) AS e;
            EXCEPTION
                WHEN OTHERS OR query_canceled THEN
                    GET STACKED DIAGNOSTICS
                        code := RETURNED_SQLSTATE, said := MESSAGE_TEXT, more := PG_EXCEPTION_DETAIL, hint := PG_EXCEPTION_HINT;
                    IF code LIKE '57%' THEN
                        PERFORM _deal_sync.raise_again(code, said, more, hint);
                    END IF;
                    name := this.name;
                    ok := false;
                    SELECT concat_ws(': ', m.message, m.detail) INTO detail FROM _deal_sync.python_error(said, more) AS m;
                    hint := nullif(hint, '');
            END;
        END IF;
        failed := failed || CASE WHEN ok IS NOT TRUE THEN ARRAY[name] END;
        RETURN NEXT;
    END LOOP;
END
$$;
COMMENT ON FUNCTION deal_sync.doctor(regrole) IS
'looks at everything that the sync stands on: one row a check, with what to do; role: whose rights are looked at, yours by default';
