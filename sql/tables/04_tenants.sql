-- In: the schemas. Out: the tables of what is known of tenants: those of the graph, what a reconcile found, counters.

CREATE TABLE _deal_sync.graph_tenants (
    tenant_id uuid PRIMARY KEY,
    deals bigint NOT NULL,
    is_known boolean NOT NULL,
    counted_at timestamptz NOT NULL DEFAULT now(),
    unchanged_at timestamptz,
    versions bigint NOT NULL DEFAULT 0
);
COMMENT ON TABLE _deal_sync.graph_tenants IS
'the tenants that the graph had when sync_all last looked, and those that were synced before';
COMMENT ON COLUMN _deal_sync.graph_tenants.deals IS 'deals in the graph';
COMMENT ON COLUMN _deal_sync.graph_tenants.is_known IS
'whether the application''s table has the tenant; if not, it is not synced';
COMMENT ON COLUMN _deal_sync.graph_tenants.counted_at IS 'when sync_all counted them';
COMMENT ON COLUMN _deal_sync.graph_tenants.unchanged_at IS
'of a tenant that is among last_sync_all.due: when sync_all last found that nothing had changed';
COMMENT ON COLUMN _deal_sync.graph_tenants.versions IS 'versions in the graph';

CREATE TABLE _deal_sync.last_sync_all (
    is_the_last boolean PRIMARY KEY DEFAULT TRUE CHECK (is_the_last),
    counted_at timestamptz,
    count_ms bigint,
    asked_at timestamptz,
    due uuid[],
    failed_at timestamptz,
    error jsonb,
    asked_by name,
    retained_at timestamptz
);
COMMENT ON TABLE _deal_sync.last_sync_all IS 'one row: when sync_all last did what it does for all tenants';
COMMENT ON COLUMN _deal_sync.last_sync_all.is_the_last IS 'allows for one row';
COMMENT ON COLUMN _deal_sync.last_sync_all.counted_at IS 'when it counted their nodes';
COMMENT ON COLUMN _deal_sync.last_sync_all.count_ms IS 'the milliseconds that it took to count them';
COMMENT ON COLUMN _deal_sync.last_sync_all.asked_at IS
'when it asked which tenants have changes, and was answered';
COMMENT ON COLUMN _deal_sync.last_sync_all.due IS
'the tenants that had some then, or needed a run for another reason: the others were up to date';
COMMENT ON COLUMN _deal_sync.last_sync_all.failed_at IS 'when it could not ask that';
COMMENT ON COLUMN _deal_sync.last_sync_all.error IS 'why not';
COMMENT ON COLUMN _deal_sync.last_sync_all.asked_by IS 'the role that asked, or could not';
COMMENT ON COLUMN _deal_sync.last_sync_all.retained_at IS 'when it removed old records';

CREATE TABLE deal_sync.reconciliations (
    tenant_id uuid NOT NULL,
    reconciled_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    missing bigint NOT NULL,
    differing bigint NOT NULL,
    extra bigint NOT NULL,
    rejected bigint NOT NULL,
    report jsonb NOT NULL,
    PRIMARY KEY (tenant_id, reconciled_at)
);
COMMENT ON TABLE deal_sync.reconciliations IS 'one row per nightly reconcile of a tenant, and what it found';
COMMENT ON COLUMN deal_sync.reconciliations.tenant_id IS 'the tenant';
COMMENT ON COLUMN deal_sync.reconciliations.reconciled_at IS 'when it ended';
COMMENT ON COLUMN deal_sync.reconciliations.missing IS 'deals, versions and links in the graph that have no row';
COMMENT ON COLUMN deal_sync.reconciliations.differing IS 'deals and versions whose row differs from the graph';
COMMENT ON COLUMN deal_sync.reconciliations.extra IS 'rows that have no counterpart in the graph';
COMMENT ON COLUMN deal_sync.reconciliations.rejected IS
'deals, versions and links in the graph that were rejected: see deal_sync.rejects';
COMMENT ON COLUMN deal_sync.reconciliations.report IS 'the rows that deal_sync.reconcile() returned, one per kind';

CREATE TABLE _deal_sync.removed_runs (
    tenant_id uuid NOT NULL,
    status text NOT NULL,
    runs bigint NOT NULL,
    rows_written bigint NOT NULL,
    PRIMARY KEY (tenant_id, status)
);
COMMENT ON TABLE _deal_sync.removed_runs IS
'what the runs that retention has removed add to the counters of deal_sync.metrics';

SELECT pg_catalog.pg_extension_config_dump('_deal_sync.graph_tenants', '');
SELECT pg_catalog.pg_extension_config_dump('_deal_sync.last_sync_all', '');
SELECT pg_catalog.pg_extension_config_dump('deal_sync.reconciliations', '');
SELECT pg_catalog.pg_extension_config_dump('_deal_sync.removed_runs', '');
