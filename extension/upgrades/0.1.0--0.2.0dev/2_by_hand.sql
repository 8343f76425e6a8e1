-- In: the tables of 0.1.0, in their new schemas. Out: what they lack, and columns under their new names.

ALTER TABLE _deal_sync.graph_tenants
    ADD COLUMN counted_at timestamptz NOT NULL DEFAULT now(),
    ADD COLUMN unchanged_at timestamptz,
    ADD COLUMN versions bigint NOT NULL DEFAULT 0;

-- The next sync_all counts.
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
SELECT pg_catalog.pg_extension_config_dump('_deal_sync.last_sync_all', '');

-- Views that stand on these columns stay. `make upgrade` reads the new names here.
ALTER TABLE deal_sync.reconciliations RENAME COLUMN refused TO rejected;
ALTER VIEW deal_sync.tenant_status RENAME COLUMN refusals_open TO rejects_open;
ALTER VIEW deal_sync.tenant_status RENAME COLUMN refusals_new TO rejects_new;

UPDATE deal_sync.reconciliations AS r
SET report = (
    SELECT jsonb_agg((e.entry - 'refused') || jsonb_build_object('rejected', e.entry -> 'refused') ORDER BY e.place)
    FROM jsonb_array_elements(r.report) WITH ORDINALITY AS e (entry, place)
)
WHERE r.report @? '$[*].refused';

-- What is known of nodes without a timestamp has a table. The next run looks at all of them, and fills it.
ALTER TABLE deal_sync.watermarks DROP COLUMN undated;

CREATE TABLE _deal_sync.undated_nodes (
    tenant_id uuid NOT NULL,
    element_id text NOT NULL,
    digest text NOT NULL,
    PRIMARY KEY (tenant_id, element_id)
);
SELECT pg_catalog.pg_extension_config_dump('_deal_sync.undated_nodes', '');
