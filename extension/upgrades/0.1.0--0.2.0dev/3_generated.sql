-- In: the members of 0.1.0. Out: the rights of what is new, and comments.
-- Written by `make upgrade`, from the catalogs of the two versions.

REVOKE EXECUTE ON ROUTINE _deal_sync.check_encoding() FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.check_handler(integer) FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.check_links() FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.check_stamps(regclass, regclass) FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.check_target_columns(text, regclass, regclass, _deal_sync.mapping_column[]) FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.check_target_table(regclass, regclass) FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.check_unfilled(text, regclass, regclass, _deal_sync.mapping_column[]) FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.conclude_run(deal_sync.run_result, text, bigint, boolean) FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.crashes_with_multicorn(integer) FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.end_reading(deal_sync.run_result, boolean, jsonb) FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.examine(regrole) FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.graph_state(uuid, boolean, boolean, double precision) FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.land_batch(text, _deal_sync.statements, deal_sync.run_result, jsonb, jsonb) FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.merge_by_hand(text) FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.statements_of(text, uuid, text[], boolean) FROM PUBLIC;
REVOKE EXECUTE ON ROUTINE _deal_sync.statements_of_comparison(text, uuid, text[]) FROM PUBLIC;
COMMENT ON SCHEMA _deal_sync IS
'what the functions and views of the schema deal_sync are made of: not to be called by anything else';
COMMENT ON COLUMN deal_sync.backfills.counts IS
'the deal_sync.run_result so far; and what its first batch found: facts, remarks for the message, what was known before';
COMMENT ON COLUMN deal_sync.watermarks.facts IS
'what the run found: ahead (seconds of the graph''s clock before PostgreSQL''s), at_boot (what it said when PostgreSQL''s machine was started: boot), deals and versions (nodes, before it read), counted_at, count_ms, newest (moment of a deal, by a full run), rows_without_deal';
COMMENT ON COLUMN deal_sync.watermarks.mapping IS
'_deal_sync.mapping_fingerprint() then, and the graph''s id: a change makes the next run full';
COMMENT ON TYPE _deal_sync.comparison IS
'a node of the graph beside its row';
COMMENT ON TYPE _deal_sync.failure IS
'a row that the application''s table refused';
COMMENT ON TYPE _deal_sync.reading IS
'what a run reads, and up to where the graph has been read afterwards';
COMMENT ON TYPE _deal_sync.statements IS
'what a run executes for each batch of a kind';
COMMENT ON TYPE _deal_sync.tenant_state IS
'what tenant_status says of a tenant';
