-- In: the members of 0.1.0. Out: the rights of what is new, and comments.
-- Written by `make upgrade`, from the catalogs of the two versions.

REVOKE EXECUTE ON ROUTINE @extschema@.sync_deals(uuid, text, boolean, boolean) FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.application_schemas() FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.as_meant(_deal_sync.error) FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.ask(text, uuid, anyelement) FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.ask_tenants(text) FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.asked_since(timestamp with time zone, name) FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.attempt(uuid, text, _deal_sync.caller) FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.begin_run(uuid, _deal_sync.request, _deal_sync.caller) FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.begin_transaction(text) FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.call_for_deal(text, uuid, uuid) FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.caller() FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.changed_tenants(jsonb, uuid[]) FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.check_cron(text, text, text, text) FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.check_encoding() FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.check_handler(integer) FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.check_rejects(jsonb) FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.check_source(text[]) FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.check_targets(text) FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.check_tenant(text, uuid) FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.checked(_deal_sync.outcome) FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.clock_was_set(jsonb, jsonb, interval) FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.column_definition(text, text, jsonb) FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.comparison_of_tenant() FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.conclude_backfill(deal_sync.backfills, _deal_sync.reading, deal_sync.run_result)
    FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.conclude_run(deal_sync.run_result, text, bigint) FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.counted_lately() FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.counted_otherwise(uuid, jsonb) FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.crashes_with_multicorn(integer) FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.create_mapping(name, name, name) FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.cron_facts() FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.default_columns() FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.default_tables(name, name, name) FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.defer_constraints() FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.end_reading(deal_sync.run_result, boolean, jsonb) FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.examine(regrole) FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.fetch_count(refcursor) FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.fill_staging(text, uuid, regrole, jsonb, text) FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.find_tenants(boolean) FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.graph_state(uuid, boolean, boolean, double precision, timestamp with time zone)
    FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.holder_of(bigint) FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.is_cancel(text) FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.is_count_due(jsonb) FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.is_for_the_caller(_deal_sync.error, boolean) FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.is_older(text, interval) FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.is_retention_due() FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.job_name(uuid, boolean, integer) FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.known_graph() FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.lacking_columns(regclass, text) FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.lacking_comments(regclass, text) FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.land_batch(text, _deal_sync.statements, deal_sync.run_result, jsonb, jsonb)
    FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.land_links(_deal_sync.statements, bigint[]) FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.line_up(uuid, text, timestamp with time zone) FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.line_up_tenant(uuid) FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.link_columns() FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.mapped_elsewhere(name) FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.mapping_state() FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.may_be_a_policy(text) FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.merge_by_hand(text) FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.message_of(_deal_sync.error, text) FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.mode_error(text) FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.new_backfill(deal_sync.run_result, _deal_sync.reading) FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.note_nodes(text, uuid, text[], text[]) FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.numbers_differ(jsonb, bigint, bigint, timestamp with time zone) FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.open_batches(text, uuid, jsonb, text) FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.phase_after(text) FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.plan_freely() FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.raise_again(_deal_sync.error) FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.raise_applications(_deal_sync.error, text, text[]) FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.read_and_land(_deal_sync.reading, text[], deal_sync.run_result) FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.record_failed_question(_deal_sync.error, name) FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.record_failure(uuid, text, timestamp with time zone, _deal_sync.error) FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.record_question(uuid[], name) FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.record_retention() FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.record_tenants(jsonb, bigint) FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.rejected_elements(uuid) FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.remember_undated(uuid, text[], text[]) FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.request_error(uuid, _deal_sync.request, _deal_sync.caller) FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.run_kind(text, refcursor, boolean, deal_sync.run_result, jsonb, jsonb) FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.select_changes(uuid, timestamp with time zone, boolean, _deal_sync.reading)
    FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.sentences(text[]) FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.settled(jsonb, timestamp with time zone, text, jsonb, interval, interval)
    FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.shown(text, jsonb) FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.skip_run(deal_sync.run_result) FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.started_backfill(uuid, text) FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.statements_of(text, uuid, text[], boolean) FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.statements_of_comparison(text, uuid, text[]) FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.sync_next(uuid, text, boolean, text, _deal_sync.caller, text) FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.sync_tenant(uuid, _deal_sync.request, _deal_sync.caller) FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.tell_of_queue(uuid[], uuid[], bigint, bigint, uuid, text, boolean) FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.tenant_error(text, uuid, text) FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.tenants_of_graph() FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.that_exist(uuid[]) FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.unchanged_tenants(jsonb, boolean) FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.uncounted(uuid, jsonb, jsonb) FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.wait_for_question() FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.warn_of_too_few(bigint) FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.watermark_of(uuid) FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.way_to_map(text) FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE deal_sync.reconcile(uuid) FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE deal_sync.replay(uuid, text[]) FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE deal_sync.schedule(text, uuid, text, integer) FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE deal_sync.sync_all(text, interval, boolean, uuid, boolean, boolean) FROM PUBLIC;
COMMENT ON SCHEMA _deal_sync IS
'internal parts of deal_sync: only the functions and views of the schema deal_sync use them';
COMMENT ON COLUMN _deal_sync.graph_tenants.counted_at IS
'when sync_all counted them';
COMMENT ON COLUMN _deal_sync.graph_tenants.deals IS
'deals in the graph';
COMMENT ON COLUMN _deal_sync.graph_tenants.is_known IS
'whether the application''s table has the tenant; if not, it is not synced';
COMMENT ON COLUMN _deal_sync.graph_tenants.unchanged_at IS
'of a tenant that is among last_sync_all.due: when sync_all last found that nothing had changed';
COMMENT ON COLUMN _deal_sync.graph_tenants.versions IS
'versions in the graph';
COMMENT ON TABLE _deal_sync.last_sync_all IS
'one row: when sync_all last did what it does for all tenants';
COMMENT ON COLUMN _deal_sync.last_sync_all.asked_at IS
'when it asked which tenants have changes, and was answered';
COMMENT ON COLUMN _deal_sync.last_sync_all.asked_by IS
'the role that asked, or could not';
COMMENT ON COLUMN _deal_sync.last_sync_all.count_ms IS
'the milliseconds that it took to count them';
COMMENT ON COLUMN _deal_sync.last_sync_all.counted_at IS
'when it counted their nodes';
COMMENT ON COLUMN _deal_sync.last_sync_all.due IS
'the tenants that had some then, or needed a run for another reason: the others were up to date';
COMMENT ON COLUMN _deal_sync.last_sync_all.error IS
'why not';
COMMENT ON COLUMN _deal_sync.last_sync_all.failed_at IS
'when it could not ask that';
COMMENT ON COLUMN _deal_sync.last_sync_all.is_the_last IS
'allows for one row';
COMMENT ON COLUMN _deal_sync.last_sync_all.retained_at IS
'when it removed old records';
COMMENT ON TABLE _deal_sync.removed_runs IS
'what the runs that retention has removed add to the counters of deal_sync.metrics';
COMMENT ON TABLE _deal_sync.undated_nodes IS
'nodes without a timestamp, as an incremental run last landed them: the next one that looks at them lands those that '
'differ';
COMMENT ON COLUMN _deal_sync.undated_nodes.digest IS
'of what was read of the node';
COMMENT ON TABLE deal_sync.backfills IS
'backfills that are not complete, and how far each has come; written in the same transaction as the rows';
COMMENT ON COLUMN deal_sync.backfills.after IS
'the last deal id that was read in this phase, as the graph has it';
COMMENT ON COLUMN deal_sync.backfills.batch_at IS
'when its last batch began';
COMMENT ON COLUMN deal_sync.backfills.cleared IS
'how many of them it has replaced with NULL so far';
COMMENT ON COLUMN deal_sync.backfills.counts IS
'its deal_sync.run_result so far, and what its first batch found: facts, remarks for the message, and what was known '
'before';
COMMENT ON COLUMN deal_sync.backfills.held IS
'how many values the tenant''s rows had when it began, by column that a run overwrites';
COMMENT ON COLUMN deal_sync.backfills.mapping IS
'as in deal_sync.watermarks, when it began; if it has changed, the backfill starts over';
COMMENT ON COLUMN deal_sync.backfills.phase IS
'what the next batch reads; nodes without id are those whose id is absent or not a text';
COMMENT ON COLUMN deal_sync.backfills.run_id IS
'the run that the backfill will be in deal_sync.runs';
COMMENT ON COLUMN deal_sync.backfills.started_at IS
'when its first batch began';
COMMENT ON COLUMN deal_sync.backfills.tenant_id IS
'the tenant';
COMMENT ON COLUMN deal_sync.backfills.watermark IS
'the tenant''s watermark once the backfill is complete';
COMMENT ON TABLE deal_sync.barred IS
'deals that are not synced, although the graph has them: deal_sync.forget() adds them, deal_sync.unbar() removes them';
COMMENT ON COLUMN deal_sync.barred.barred_at IS
'when it was barred';
COMMENT ON COLUMN deal_sync.barred.barred_by IS
'session_user at that time';
COMMENT ON COLUMN deal_sync.barred.graph_id IS
'the deal''s id in the graph: opportunities.graph_opportunity_id';
COMMENT ON COLUMN deal_sync.barred.tenant_id IS
'the tenant that the deal belongs to';
COMMENT ON TABLE deal_sync.graph IS
'the graph that this database is synced with; a run that finds another one fails, until deal_sync.accept_graph() '
'confirms it';
COMMENT ON COLUMN deal_sync.graph.accepted_at IS
'when the first run found it, or accept_graph() confirmed it';
COMMENT ON COLUMN deal_sync.graph.accepted_by IS
'session_user at that time';
COMMENT ON COLUMN deal_sync.graph.database_id IS
'the id of the Neo4j database, as CALL db.info() returns it';
COMMENT ON COLUMN deal_sync.graph.entry_id IS
'identifies the row, for logical replication';
COMMENT ON TABLE deal_sync.reconciliations IS
'one row per nightly reconcile of a tenant, and what it found';
COMMENT ON COLUMN deal_sync.reconciliations.differing IS
'deals and versions whose row differs from the graph';
COMMENT ON COLUMN deal_sync.reconciliations.extra IS
'rows that have no counterpart in the graph';
COMMENT ON COLUMN deal_sync.reconciliations.missing IS
'deals, versions and links in the graph that have no row';
COMMENT ON COLUMN deal_sync.reconciliations.reconciled_at IS
'when it ended';
COMMENT ON COLUMN deal_sync.reconciliations.rejected IS
'deals, versions and links in the graph that were rejected: see deal_sync.rejects';
COMMENT ON COLUMN deal_sync.reconciliations.report IS
'the rows that deal_sync.reconcile() returned, one per kind';
COMMENT ON COLUMN deal_sync.reconciliations.tenant_id IS
'the tenant';
COMMENT ON TABLE deal_sync.rejects IS
'what could not land, and why; a row is removed once its cause is gone';
COMMENT ON COLUMN deal_sync.rejects.column_name IS
'the column of the foreign table; empty if the whole row is meant';
COMMENT ON COLUMN deal_sync.rejects.element_id IS
'Neo4j''s element id of the node; it does not survive a restore of the graph';
COMMENT ON COLUMN deal_sync.rejects.first_seen IS
'when a run first met it';
COMMENT ON COLUMN deal_sync.rejects.graph_id IS
'opportunity_id of the deal or version_id of the version, as the graph has it';
COMMENT ON COLUMN deal_sync.rejects.kind IS
'deal, version or link';
COMMENT ON COLUMN deal_sync.rejects.last_seen IS
'when a run last met it';
COMMENT ON COLUMN deal_sync.rejects.level IS
'row: the whole row was rejected; value: one value was, and the rest of the row landed; note: nothing was rejected';
COMMENT ON COLUMN deal_sync.rejects.message IS
'the reason, in names and codes only: contains no application data';
COMMENT ON COLUMN deal_sync.rejects.run_id IS
'the last run that met it';
COMMENT ON COLUMN deal_sync.rejects.server_text IS
'the error as the server reported it; may contain application data, so monitoring roles cannot read it';
COMMENT ON COLUMN deal_sync.rejects.sqlstate IS
'SQLSTATE of the error; 00000 for a note';
COMMENT ON COLUMN deal_sync.rejects.tenant_id IS
'the tenant that the node belongs to';
COMMENT ON COLUMN deal_sync.rejects.times_seen IS
'how many runs have met it';
COMMENT ON COLUMN deal_sync.rejects.value IS
'the offending value, shortened; removed after deal_sync.values_kept, and monitoring roles cannot read it';
COMMENT ON TABLE deal_sync.runs IS
'one row per run: of a tenant, by sync_deals, sync_all, replay or backfill';
COMMENT ON COLUMN deal_sync.runs.deals_adopted IS
'deals that took over a row of the application: one without a graph id, whose id was that of the deal';
COMMENT ON COLUMN deal_sync.runs.deals_inserted IS
'deals for which a row was inserted into opportunities';
COMMENT ON COLUMN deal_sync.runs.deals_read IS
'deals read from the graph';
COMMENT ON COLUMN deal_sync.runs.deals_unchanged IS
'deals whose row was up to date already';
COMMENT ON COLUMN deal_sync.runs.deals_updated IS
'deals whose row was updated';
COMMENT ON COLUMN deal_sync.runs.links_inserted IS
'rows inserted into interaction_links';
COMMENT ON COLUMN deal_sync.runs.message IS
'what happened, in names and codes only: contains no application data';
COMMENT ON COLUMN deal_sync.runs.mode IS
'what was read: incremental (what has changed since the last run), full (everything), replay (everything or the given '
'deals, to complete landed versions too) or backfill (everything, in batches)';
COMMENT ON COLUMN deal_sync.runs.rows_rejected IS
'deals, versions and links that could not land';
COMMENT ON COLUMN deal_sync.runs.run_id IS
'identifies the run; deal_sync.rejects refers to it';
COMMENT ON COLUMN deal_sync.runs.seconds IS
'how long the run took';
COMMENT ON COLUMN deal_sync.runs.server_text IS
'the error as the server reported it; may contain application data, so monitoring roles cannot read it';
COMMENT ON COLUMN deal_sync.runs.sqlstate IS
'SQLSTATE of the error that ended the run';
COMMENT ON COLUMN deal_sync.runs.started_at IS
'when the run began';
COMMENT ON COLUMN deal_sync.runs.status IS
'ok; partial (some rows or values were rejected: see deal_sync.rejects); failed (rolled back; of a backfill, the last '
'batch only) or skipped (another session was syncing the tenant)';
COMMENT ON COLUMN deal_sync.runs.tenant_id IS
'the tenant that was synced';
COMMENT ON COLUMN deal_sync.runs.values_rejected IS
'single values that could not land, in rows that did';
COMMENT ON COLUMN deal_sync.runs.versions_inserted IS
'rows inserted into deal_versions';
COMMENT ON COLUMN deal_sync.runs.watermark IS
'up to when the graph has been read, by the graph''s clock; NULL if the run did not advance the tenant''s watermark';
COMMENT ON TABLE deal_sync.watermarks IS
'up to when each tenant''s graph has been read; written in the same transaction as the rows';
COMMENT ON COLUMN deal_sync.watermarks.facts IS
'what the run found: ahead (seconds by which the graph''s clock is ahead of PostgreSQL''s), unsure (how exactly, in '
'seconds), boot (the boot of PostgreSQL''s machine), at_boot (the graph''s clock at that boot), deals and versions '
'(nodes), counted_at, count_ms, undated_at (when nodes without a timestamp were last read), newest (last change of a '
'deal, of a full run), rows_without_deal';
COMMENT ON COLUMN deal_sync.watermarks.full_at IS
'when the last full run began';
COMMENT ON COLUMN deal_sync.watermarks.mapping IS
'fingerprint of the mapping, and the graph''s database id; if either changes, the next run is a full one';
COMMENT ON COLUMN deal_sync.watermarks.run_id IS
'the run that set the watermark';
COMMENT ON COLUMN deal_sync.watermarks.tenant_id IS
'the tenant';
COMMENT ON COLUMN deal_sync.watermarks.watermark IS
'a time of the graph''s clock: the next incremental run reads what has changed since then; it lies deal_sync.overlap '
'before the run that set it';
COMMENT ON TYPE _deal_sync.caller IS
'the settings of the caller that a run replaces by its own; tenant_setting: app.tenant_id';
COMMENT ON TYPE _deal_sync.comparison IS
'a node of the graph compared with its row';
COMMENT ON TYPE _deal_sync.error IS
'an error that was caught';
COMMENT ON TYPE _deal_sync.failure IS
'a row that the application''s table rejected when it was written alone';
COMMENT ON TYPE _deal_sync.outcome IS
'the result of a run, or the error that is raised instead';
COMMENT ON TYPE _deal_sync.reading IS
'what a run reads, and up to when the graph has been read afterwards';
COMMENT ON TYPE _deal_sync.request IS
'what a run was asked for';
COMMENT ON TYPE _deal_sync.statements IS
'the statements that a run executes for each batch of a kind';
COMMENT ON TYPE _deal_sync.tenant_state IS
'the states of deal_sync.tenant_status';
COMMENT ON TYPE deal_sync.run_result IS
'what a run did; deal_sync.runs keeps it, except for a dry run';
COMMENT ON COLUMN deal_sync.run_result.deals_adopted IS
'deals that took over a row of the application: one without a graph id, whose id was that of the deal';
COMMENT ON COLUMN deal_sync.run_result.deals_inserted IS
'deals for which a row was inserted into opportunities';
COMMENT ON COLUMN deal_sync.run_result.deals_read IS
'deals read from the graph';
COMMENT ON COLUMN deal_sync.run_result.deals_unchanged IS
'deals whose row was up to date already';
COMMENT ON COLUMN deal_sync.run_result.deals_updated IS
'deals whose row was updated';
COMMENT ON COLUMN deal_sync.run_result.links_inserted IS
'rows inserted into interaction_links';
COMMENT ON COLUMN deal_sync.run_result.message IS
'what happened, in names and codes only: contains no application data';
COMMENT ON COLUMN deal_sync.run_result.mode IS
'what was read: incremental (what has changed since the last run), full (everything), replay (everything or the given '
'deals, to complete landed versions too) or backfill (everything, in batches)';
COMMENT ON COLUMN deal_sync.run_result.rows_rejected IS
'deals, versions and links that could not land';
COMMENT ON COLUMN deal_sync.run_result.run_id IS
'identifies the run; deal_sync.rejects refers to it';
COMMENT ON COLUMN deal_sync.run_result.seconds IS
'how long the run took';
COMMENT ON COLUMN deal_sync.run_result.status IS
'ok; partial (some rows or values were rejected: see deal_sync.rejects); failed (rolled back; of a backfill, the last '
'batch only) or skipped (another session was syncing the tenant)';
COMMENT ON COLUMN deal_sync.run_result.tenant_id IS
'the tenant that was synced';
COMMENT ON COLUMN deal_sync.run_result.values_rejected IS
'single values that could not land, in rows that did';
COMMENT ON COLUMN deal_sync.run_result.versions_inserted IS
'rows inserted into deal_versions';
COMMENT ON COLUMN deal_sync.run_result.watermark IS
'up to when the graph has been read, by the graph''s clock; NULL if the run did not advance the tenant''s watermark';
