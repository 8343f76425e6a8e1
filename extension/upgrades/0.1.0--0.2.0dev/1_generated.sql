-- In: the members of 0.1.0. Out: what has gone, moved or got another signature; never by CASCADE.
-- Written by `make upgrade`, from the catalogs of the two versions.

-- A new function of another owner would look for another user mapping.
DO $$
DECLARE
    extension_owner CONSTANT regrole := (SELECT e.extowner FROM pg_extension AS e WHERE e.extname = 'deal_sync');
BEGIN
    IF extension_owner <> quote_ident(current_user)::regrole THEN
        RAISE EXCEPTION 'extension "deal_sync" must be updated by its owner' USING
            ERRCODE = 'insufficient_privilege',
            HINT = format('SET ROLE %s;', extension_owner);
    END IF;
END
$$;

DROP ROUTINE @extschema@.sync_deals(uuid, text, boolean, boolean, text);
DROP ROUTINE deal_sync.attempt(uuid, text, text);
DROP ROUTINE deal_sync.cast_expression(text, oid, integer, oid, integer);
DROP ROUTINE deal_sync.check_cron(text, text, text);
DROP ROUTINE deal_sync.check_foreign_tables();
DROP ROUTINE deal_sync.check_last_run();
DROP ROUTINE deal_sync.check_multicorn();
DROP ROUTINE deal_sync.check_pg_cron();
DROP ROUTINE deal_sync.check_policies();
DROP ROUTINE deal_sync.check_rights(regrole);
DROP ROUTINE deal_sync.check_role(regrole);
DROP ROUTINE deal_sync.check_row_security(regrole);
DROP ROUTINE deal_sync.check_schedule();
DROP ROUTINE deal_sync.check_settings();
DROP ROUTINE deal_sync.check_source(text);
DROP ROUTINE deal_sync.check_targets();
DROP ROUTINE deal_sync.check_tenant(text, uuid);
DROP ROUTINE deal_sync.conclude_run(deal_sync.run_result, text, boolean);
DROP ROUTINE deal_sync.cron_facts();
DROP ROUTINE deal_sync.default_columns();
DROP ROUTINE deal_sync.differs(deal_sync.merge_column[], text[]);
DROP ROUTINE deal_sync.examine(text, regrole);
DROP ROUTINE deal_sync.fill_staging(text, uuid, regrole, jsonb);
DROP ROUTINE deal_sync.graph_state(uuid, boolean, boolean, double precision);
DROP ROUTINE deal_sync.job_name(uuid, boolean);
DROP ROUTINE deal_sync.line_up(uuid);
DROP ROUTINE deal_sync.merge_columns(text, boolean, boolean);
DROP ROUTINE deal_sync.merge_parts(text, uuid, text[], boolean);
DROP ROUTINE deal_sync.nobodys_nodes(text);
DROP ROUTINE deal_sync.python_error(text, text);
DROP ROUTINE deal_sync.raise_again(text, text, text, text, text);
DROP ROUTINE deal_sync.raise_applications(text, text, text, text, text, text[]);
DROP ROUTINE deal_sync.reconcile(uuid);
DROP ROUTINE deal_sync.record_failure(uuid, text, timestamp with time zone, text, text, text, text, text);
DROP ROUTINE deal_sync.record_tenants(jsonb);
DROP ROUTINE deal_sync.refused_elements(uuid);
DROP ROUTINE deal_sync.remember_undated(uuid, text[], jsonb);
DROP ROUTINE deal_sync.replay(uuid, text[], text);
DROP ROUTINE deal_sync.run_kind(text, jsonb, deal_sync.run_result, jsonb, jsonb);
DROP ROUTINE deal_sync.schedule(text, uuid, text);
DROP ROUTINE deal_sync.sync_all(text, interval, boolean, uuid, boolean);
DROP ROUTINE deal_sync.sync_tenant(uuid, text, boolean, boolean, text, text[], integer, timestamp with time zone);
DROP ROUTINE deal_sync.tenants_of_graph();
DROP ROUTINE deal_sync.to_double(double precision);
DROP ROUTINE deal_sync.to_text(timestamp with time zone);
DROP ROUTINE deal_sync.values_held(uuid, refcursor);
DROP ROUTINE deal_sync.watermark_of(uuid);
DROP TYPE deal_sync.merge_column;
DROP ROUTINE deal_sync.land_batch(text, deal_sync.statements, deal_sync.run_result, jsonb, jsonb);
DROP ROUTINE deal_sync.statements_of(text, uuid, text[], boolean);
DROP TYPE deal_sync.statements;
CREATE SCHEMA _deal_sync;
ALTER ROUTINE deal_sync.add_counts(jsonb, jsonb, integer) SET SCHEMA _deal_sync;
ALTER ROUTINE deal_sync.application_table(text, text) SET SCHEMA _deal_sync;
ALTER ROUTINE deal_sync.applications_context(text, text[]) SET SCHEMA _deal_sync;
ALTER ROUTINE deal_sync.attempt_reconcile(uuid) SET SCHEMA _deal_sync;
ALTER ROUTINE deal_sync.bar(uuid, uuid, text[]) SET SCHEMA _deal_sync;
ALTER ROUTINE deal_sync.barred_of(uuid) SET SCHEMA _deal_sync;
ALTER ROUTINE deal_sync.base_type(oid, integer) SET SCHEMA _deal_sync;
ALTER ROUTINE deal_sync.cast_error(text, regtype, integer) SET SCHEMA _deal_sync;
ALTER ROUTINE deal_sync.check_graph(text) SET SCHEMA _deal_sync;
ALTER ROUTINE deal_sync.check_losses(jsonb, jsonb) SET SCHEMA _deal_sync;
ALTER ROUTINE deal_sync.check_package() SET SCHEMA _deal_sync;
ALTER ROUTINE deal_sync.check_readable(regclass, text[]) SET SCHEMA _deal_sync;
ALTER ROUTINE deal_sync.check_rights_of_caller() SET SCHEMA _deal_sync;
ALTER ROUTINE deal_sync.check_server() SET SCHEMA _deal_sync;
ALTER ROUTINE deal_sync.check_setup(uuid) SET SCHEMA _deal_sync;
ALTER ROUTINE deal_sync.check_writable() SET SCHEMA _deal_sync;
ALTER ROUTINE deal_sync.cleared_columns(jsonb) SET SCHEMA _deal_sync;
ALTER ROUTINE deal_sync.close_connections(name) SET SCHEMA _deal_sync;
ALTER ROUTINE deal_sync.compare(uuid, boolean, boolean) SET SCHEMA _deal_sync;
ALTER ROUTINE deal_sync.compare_nodes(text, uuid, text[], boolean) SET SCHEMA _deal_sync;
ALTER ROUTINE deal_sync.count_of_values() SET SCHEMA _deal_sync;
ALTER ROUTINE deal_sync.deal_keys(text, uuid, text, integer) SET SCHEMA _deal_sync;
ALTER ROUTINE deal_sync.elements_of(uuid, uuid) SET SCHEMA _deal_sync;
ALTER ROUTINE deal_sync.embedding_columns(text) SET SCHEMA _deal_sync;
ALTER ROUTINE deal_sync.end_backfill(deal_sync.backfills) SET SCHEMA _deal_sync;
ALTER ROUTINE deal_sync.entry_point() SET SCHEMA _deal_sync;
ALTER ROUTINE deal_sync.examine_graph(boolean) SET SCHEMA _deal_sync;
ALTER ROUTINE deal_sync.execute_for(text, bigint[], uuid[]) SET SCHEMA _deal_sync;
ALTER ROUTINE deal_sync.explain_error(text, text, text, text, text) SET SCHEMA _deal_sync;
ALTER ROUTINE deal_sync.graph_keys(text, uuid) SET SCHEMA _deal_sync;
ALTER ROUTINE deal_sync.hurry_constraints() SET SCHEMA _deal_sync;
ALTER ROUTINE deal_sync.import_statements(name, name, text[], text[], bigint, text) SET SCHEMA _deal_sync;
ALTER ROUTINE deal_sync.is_backfilled(uuid) SET SCHEMA _deal_sync;
ALTER ROUTINE deal_sync.is_mass(bigint) SET SCHEMA _deal_sync;
ALTER ROUTINE deal_sync.is_row_error(text) SET SCHEMA _deal_sync;
ALTER ROUTINE deal_sync.keep_backfill(deal_sync.backfills) SET SCHEMA _deal_sync;
ALTER ROUTINE deal_sync.kept_connections() SET SCHEMA _deal_sync;
ALTER ROUTINE deal_sync.keys_held(text, uuid) SET SCHEMA _deal_sync;
ALTER ROUTINE deal_sync.land(text, bigint[], uuid[]) SET SCHEMA _deal_sync;
ALTER ROUTINE deal_sync.left_out(text[], text[], jsonb) SET SCHEMA _deal_sync;
ALTER ROUTINE deal_sync.load_package() SET SCHEMA _deal_sync;
ALTER ROUTINE deal_sync.lock_key(uuid) SET SCHEMA _deal_sync;
ALTER ROUTINE deal_sync.mapped(text) SET SCHEMA _deal_sync;
ALTER ROUTINE deal_sync.mapping_columns(regclass) SET SCHEMA _deal_sync;
ALTER ROUTINE deal_sync.mapping_fingerprint() SET SCHEMA _deal_sync;
ALTER ROUTINE deal_sync.missing_rights(regrole) SET SCHEMA _deal_sync;
ALTER ROUTINE deal_sync.next_run(text, timestamp with time zone, text) SET SCHEMA _deal_sync;
ALTER ROUTINE deal_sync.nothing_done(deal_sync.run_result) SET SCHEMA _deal_sync;
ALTER ROUTINE deal_sync.open_count(uuid) SET SCHEMA _deal_sync;
ALTER ROUTINE deal_sync.options_clause(text[]) SET SCHEMA _deal_sync;
ALTER ROUTINE deal_sync.options_of(text[]) SET SCHEMA _deal_sync;
ALTER ROUTINE deal_sync.package_versions() SET SCHEMA _deal_sync;
ALTER ROUTINE deal_sync.place_of_error(text) SET SCHEMA _deal_sync;
ALTER ROUTINE deal_sync.plan_reading(uuid, text) SET SCHEMA _deal_sync;
ALTER ROUTINE deal_sync.python_version() SET SCHEMA _deal_sync;
ALTER ROUTINE deal_sync.raise_unknown(uuid) SET SCHEMA _deal_sync;
ALTER ROUTINE deal_sync.record_reconciliation(uuid, jsonb) SET SCHEMA _deal_sync;
ALTER ROUTINE deal_sync.record_rejects(uuid, uuid, jsonb) SET SCHEMA _deal_sync;
ALTER ROUTINE deal_sync.record_run(deal_sync.run_result, timestamp with time zone, text, text) SET SCHEMA _deal_sync;
ALTER ROUTINE deal_sync.record_watermark(uuid, uuid, timestamp with time zone, text, boolean, jsonb)
    SET SCHEMA _deal_sync;
ALTER ROUTINE deal_sync.remove_bar(uuid, uuid) SET SCHEMA _deal_sync;
ALTER ROUTINE deal_sync.remove_records(interval, interval, uuid[]) SET SCHEMA _deal_sync;
ALTER ROUTINE deal_sync.remove_tenant(uuid) SET SCHEMA _deal_sync;
ALTER ROUTINE deal_sync.replace_graph(text) SET SCHEMA _deal_sync;
ALTER ROUTINE deal_sync.routines_of_sync() SET SCHEMA _deal_sync;
ALTER ROUTINE deal_sync.rows_without_deal(deal_sync.run_result) SET SCHEMA _deal_sync;
ALTER ROUTINE deal_sync.run_backfill_batch(deal_sync.run_result, integer) SET SCHEMA _deal_sync;
ALTER ROUTINE deal_sync.run_tenant(deal_sync.run_result, text[]) SET SCHEMA _deal_sync;
ALTER ROUTINE deal_sync.running() SET SCHEMA _deal_sync;
ALTER ROUTINE deal_sync.scan_rows(regclass, uuid, text[], bigint) SET SCHEMA _deal_sync;
ALTER ROUTINE deal_sync.scheduled_jobs() SET SCHEMA _deal_sync;
ALTER ROUTINE deal_sync.set_handler(name, integer) SET SCHEMA _deal_sync;
ALTER ROUTINE deal_sync.setting(text) SET SCHEMA _deal_sync;
ALTER ROUTINE deal_sync.settle_rejects(uuid, uuid, text[]) SET SCHEMA _deal_sync;
ALTER ROUTINE deal_sync.size_setting(text) SET SCHEMA _deal_sync;
ALTER ROUTINE deal_sync.stamp_column() SET SCHEMA _deal_sync;
ALTER ROUTINE deal_sync.summary(deal_sync.run_result, boolean) SET SCHEMA _deal_sync;
ALTER ROUTINE deal_sync.table_option(text, text) SET SCHEMA _deal_sync;
ALTER ROUTINE deal_sync.target_tables() SET SCHEMA _deal_sync;
ALTER ROUTINE deal_sync.target_tablespaces() SET SCHEMA _deal_sync;
ALTER ROUTINE deal_sync.tenant_exists(uuid) SET SCHEMA _deal_sync;
ALTER ROUTINE deal_sync.to_bigint(double precision) SET SCHEMA _deal_sync;
ALTER ROUTINE deal_sync.to_integer(bigint) SET SCHEMA _deal_sync;
ALTER ROUTINE deal_sync.to_numeric(double precision, integer, integer) SET SCHEMA _deal_sync;
ALTER ROUTINE deal_sync.to_numeric(numeric, integer, integer) SET SCHEMA _deal_sync;
ALTER ROUTINE deal_sync.to_smallint(bigint) SET SCHEMA _deal_sync;
ALTER ROUTINE deal_sync.to_text(double precision) SET SCHEMA _deal_sync;
ALTER ROUTINE deal_sync.to_type(text, text) SET SCHEMA _deal_sync;
ALTER ROUTINE deal_sync.to_uuid(text) SET SCHEMA _deal_sync;
ALTER ROUTINE deal_sync.to_varchar(text, integer) SET SCHEMA _deal_sync;
ALTER ROUTINE deal_sync.try_cast(text, anyelement) SET SCHEMA _deal_sync;
ALTER ROUTINE deal_sync.unread(text, uuid) SET SCHEMA _deal_sync;
ALTER ROUTINE deal_sync.unschedule_job(text) SET SCHEMA _deal_sync;
ALTER ROUTINE deal_sync.validator(text[], oid) SET SCHEMA _deal_sync;
ALTER ROUTINE deal_sync.vector_type() SET SCHEMA _deal_sync;
ALTER ROUTINE deal_sync.verify_tenant(uuid) SET SCHEMA _deal_sync;
ALTER ROUTINE deal_sync.wait_for_tenant(uuid) SET SCHEMA _deal_sync;
ALTER VIEW deal_sync.tenant_runs SET SCHEMA _deal_sync;
ALTER TABLE deal_sync.graph_tenants SET SCHEMA _deal_sync;
ALTER TABLE deal_sync.removed_runs SET SCHEMA _deal_sync;
ALTER TYPE deal_sync.comparison SET SCHEMA _deal_sync;
ALTER TYPE deal_sync.failure SET SCHEMA _deal_sync;
ALTER TYPE deal_sync.mapping_column SET SCHEMA _deal_sync;
ALTER TYPE deal_sync.reading SET SCHEMA _deal_sync;
ALTER TYPE deal_sync.tenant_state SET SCHEMA _deal_sync;
CREATE TYPE _deal_sync.caller AS (
    search_path text,
    tenant_setting text
);
CREATE TYPE _deal_sync.error AS (
    code text,
    message text,
    detail text,
    hint text,
    origin text,
    place text
);
CREATE TYPE _deal_sync.outcome AS (
    result deal_sync.run_result,
    error _deal_sync.error
);
CREATE TYPE _deal_sync.request AS (
    function text,
    mode text,
    is_dry_run boolean,
    is_strict boolean,
    graph_ids text[],
    batch_size integer,
    began timestamp with time zone
);
CREATE TYPE _deal_sync.statements AS (
    planned text,
    to_write text,
    locks text,
    cleared text,
    merge text,
    completion text,
    failed text,
    unwritten text,
    counted text,
    rejects text,
    links text,
    linked text,
    unlinked text,
    suppressed text
);
