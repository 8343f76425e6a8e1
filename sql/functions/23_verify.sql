-- In: the mapping and the application's tables. Out: how much of each tenant's deals is there, one row per tenant.

-- The names of the columns come from the mapping: no field and no dimension is named here.
CREATE OR REPLACE FUNCTION _deal_sync.verify_tenant(
    tenant uuid,
    OUT deals bigint, OUT with_graph_id bigint, OUT with_meddic bigint, OUT meddic_filled numeric,
    OUT with_dimensions bigint, OUT with_embedding bigint, OUT versions bigint, OUT deals_with_versions bigint
)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET "app.tenant_id" = ''
AS $$
DECLARE
    mapping CONSTANT _deal_sync.mapping_column[] := ARRAY(
        SELECT m FROM _deal_sync.mapping_columns(_deal_sync.mapped('deal')) AS m WHERE m.target_is_there
    );
    meddic text;
    fields integer;
    dimensions text;
    embeddings text;
BEGIN
    PERFORM set_config('app.tenant_id', tenant::text, true);
    SELECT string_agg(format('(nullif(o.%I::text, '''') IS NOT NULL)::integer', f.target), ' + '), count(*)
    INTO meddic, fields
    FROM unnest(mapping) AS m
    CROSS JOIN LATERAL regexp_split_to_table(m.options ->> 'of', ' *, *') AS part (name)
    INNER JOIN unnest(mapping) AS f ON f.name = part.name
    WHERE m.options ->> 'derive' = 'meddic_completeness';
    SELECT
        string_agg(c.is_filled, ' OR ') FILTER (WHERE c.derive = 'ontology_scores'),
        string_agg(c.is_filled, ' OR ') FILTER (WHERE c.target_type = _deal_sync.vector_type())
    INTO dimensions, embeddings
    FROM (
        SELECT format('o.%I IS NOT NULL', m.target) AS is_filled, m.options ->> 'derive' AS derive, m.target_type
        FROM unnest(mapping) AS m
    ) AS c;

    EXECUTE format(
        $checks$
        SELECT
            count(*), count(o.graph_opportunity_id),
            count(*) FILTER (WHERE %1$s > 0),
            round(avg((%1$s)::numeric / %2$s) FILTER (WHERE o.graph_opportunity_id IS NOT NULL), 3),
            count(*) FILTER (WHERE %3$s), count(*) FILTER (WHERE %4$s),
            (SELECT count(*) FROM %6$s AS v WHERE v.tenant_id = $1),
            count(*) FILTER (WHERE EXISTS (SELECT FROM %6$s AS v WHERE v.tenant_id = $1 AND v.opportunity_id = o.id))
        FROM %5$s AS o
        WHERE o.tenant_id = $1$checks$,
        coalesce(meddic, '0'), greatest(fields, 1), coalesce(dimensions, 'false'), coalesce(embeddings, 'false'),
        _deal_sync.application_table('deal', 'target'), _deal_sync.application_table('version', 'target')
    )
    INTO
        deals, with_graph_id, with_meddic, meddic_filled, with_dimensions, with_embedding, versions,
        deals_with_versions
    USING tenant;
END
$$;
COMMENT ON FUNCTION _deal_sync.verify_tenant(uuid) IS
'the row of a tenant in deal_sync.verify, with the caller''s rights';

CREATE OR REPLACE VIEW deal_sync.verify AS
SELECT
    t.tenant_id,
    v.deals,
    v.with_graph_id,
    v.with_meddic,
    v.meddic_filled,
    v.with_dimensions,
    v.with_embedding,
    v.versions,
    v.deals_with_versions
FROM (SELECT DISTINCT r.tenant_id FROM deal_sync.runs AS r) AS t
CROSS JOIN LATERAL _deal_sync.verify_tenant(t.tenant_id) AS v;
COMMENT ON VIEW deal_sync.verify IS
'one row per tenant that was ever synced: how many of its deals have what the sync fills; counted with your rights';
COMMENT ON COLUMN deal_sync.verify.tenant_id IS 'the tenant';
COMMENT ON COLUMN deal_sync.verify.deals IS 'its rows in opportunities';
COMMENT ON COLUMN deal_sync.verify.with_graph_id IS 'those that belong to a deal of the graph';
COMMENT ON COLUMN deal_sync.verify.with_meddic IS 'those with at least one MEDDIC field';
COMMENT ON COLUMN deal_sync.verify.meddic_filled IS
'average share of the MEDDIC fields that are filled, of the deals with a graph id: 0 to 1';
COMMENT ON COLUMN deal_sync.verify.with_dimensions IS 'those with the score of at least one dimension';
COMMENT ON COLUMN deal_sync.verify.with_embedding IS 'those with an embedding';
COMMENT ON COLUMN deal_sync.verify.versions IS 'its rows in deal_versions';
COMMENT ON COLUMN deal_sync.verify.deals_with_versions IS 'rows in opportunities that have at least one version';
