-- In: opportunities, deal_versions and interaction_links, as sql/migration/deal_sync.sql leaves them.
-- Out: opportunity_pipeline, rpt_account_health and account_360 with what the extraction adds. If a view of that name
-- exists, it stays as it is, and the columns that it lacks are printed.
--
-- The views belong to the application, not to the extension. Run this with psql, as a role that may read the tables and
-- create in the schema:
--     psql -v schema=reports -v application=public -f extra/views.sql
-- schema: where the views go, created if it does not exist; application: where the tables are. Both default to public.
--
-- The views are security_invoker: to read one, a role needs SELECT on it and on the tables, and sees what row-level
-- security shows of these. Amounts of different currencies are never added up. Closed is what has the stage closed_won
-- or closed_lost: if your stages have other names, change them here.

\set ON_ERROR_STOP on
\if :{?schema}
\else
\set schema public
\endif
\if :{?application}
\else
\set application public
\endif

BEGIN;
SET LOCAL search_path = pg_catalog, pg_temp;
SET LOCAL client_min_messages = warning;
SELECT to_regnamespace(quote_ident(:'schema')) IS NULL AS no_schema \gset
\if :no_schema
CREATE SCHEMA :"schema";
\endif

-- 1. The views as they should be, for this session. A column's comment is its definition, for those who have a view of
--    their own; the columns that have one are those that the extraction adds.

CREATE TEMP VIEW opportunity_pipeline AS
SELECT
    o.tenant_id,
    o.id AS opportunity_id,
    o.account_id,
    o.opportunity_name,
    o.stage,
    o.amount,
    o.currency,
    o.close_date,
    o.graph_opportunity_id,
    o.meddic_completeness,
    CASE WHEN o.graph_opportunity_id IS NOT NULL THEN o.extraction_version END AS extraction_version,
    o.extraction_confidence
FROM :"application".opportunities AS o
WHERE o.stage IS NULL OR o.stage::text NOT IN ('closed_won', 'closed_lost');
COMMENT ON VIEW pg_temp.opportunity_pipeline IS
'one row per opportunity that is not closed, with how well its deal is known';
COMMENT ON COLUMN pg_temp.opportunity_pipeline.meddic_completeness IS 'opportunities.meddic_completeness';
COMMENT ON COLUMN pg_temp.opportunity_pipeline.extraction_version IS
'CASE WHEN opportunities.graph_opportunity_id IS NOT NULL THEN opportunities.extraction_version END';
COMMENT ON COLUMN pg_temp.opportunity_pipeline.extraction_confidence IS 'opportunities.extraction_confidence';

CREATE TEMP VIEW rpt_account_health AS
SELECT
    o.tenant_id,
    o.account_id,
    count(*) AS opportunities,
    count(*) FILTER (WHERE o.stage IS NULL OR o.stage::text NOT IN ('closed_won', 'closed_lost')) AS open_opportunities,
    count(o.graph_opportunity_id) AS extracted_deals,
    round(avg(o.meddic_completeness), 2) AS avg_meddic_completeness,
    round(avg(o.extraction_confidence), 2) AS avg_extraction_confidence,
    coalesce(sum(v.versions), 0)::bigint AS deal_versions,
    max(v.latest) AS latest_deal_version_at,
    coalesce(max(l.interactions), 0) AS linked_interactions
FROM :"application".opportunities AS o
LEFT JOIN (
    SELECT
        d.tenant_id,
        d.opportunity_id,
        count(*) AS versions,
        max(d.created_at) AS latest
    FROM :"application".deal_versions AS d
    GROUP BY d.tenant_id, d.opportunity_id
) AS v ON o.tenant_id = v.tenant_id AND o.id = v.opportunity_id
LEFT JOIN (
    SELECT
        i.tenant_id,
        p.account_id,
        count(DISTINCT i.interaction_id) AS interactions
    FROM :"application".interaction_links AS i
    INNER JOIN :"application".opportunities AS p ON i.tenant_id = p.tenant_id AND i.entity_id = p.id
    WHERE i.entity_type::text = 'opportunity'
    GROUP BY i.tenant_id, p.account_id
) AS l ON o.tenant_id = l.tenant_id AND o.account_id = l.account_id
WHERE o.account_id IS NOT NULL
GROUP BY o.tenant_id, o.account_id;
COMMENT ON VIEW pg_temp.rpt_account_health IS
'one row per account that has opportunities, with the metrics of its extracted deals';
COMMENT ON COLUMN pg_temp.rpt_account_health.extracted_deals IS 'count(opportunities.graph_opportunity_id)';
COMMENT ON COLUMN pg_temp.rpt_account_health.avg_meddic_completeness IS
'round(avg(opportunities.meddic_completeness), 2)';
COMMENT ON COLUMN pg_temp.rpt_account_health.avg_extraction_confidence IS
'round(avg(opportunities.extraction_confidence), 2)';
COMMENT ON COLUMN pg_temp.rpt_account_health.deal_versions IS 'rows of deal_versions of the account''s opportunities';
COMMENT ON COLUMN pg_temp.rpt_account_health.latest_deal_version_at IS 'max(deal_versions.created_at) of these';
COMMENT ON COLUMN pg_temp.rpt_account_health.linked_interactions IS
'count(DISTINCT interaction_links.interaction_id) of the account''s opportunities, where entity_type is opportunity';

CREATE TEMP VIEW account_360 AS
SELECT
    c.tenant_id,
    c.account_id,
    coalesce(sum(c.opportunities) FILTER (WHERE c.state = 'open'), 0)::bigint AS open_opportunities,
    coalesce(sum(c.opportunities) FILTER (WHERE c.state = 'closed_won'), 0)::bigint AS won_opportunities,
    coalesce(sum(c.opportunities) FILTER (WHERE c.state = 'closed_lost'), 0)::bigint AS lost_opportunities,
    jsonb_object_agg(coalesce(c.currency, 'unknown'), c.amount)
        FILTER (WHERE c.state = 'open' AND c.amount IS NOT NULL) AS open_amounts,
    min(c.next_close_date) FILTER (WHERE c.state = 'open') AS next_close_date,
    round(
        sum(c.completeness) FILTER (WHERE c.state = 'open')
        / sum(nullif(c.known, 0)) FILTER (WHERE c.state = 'open'),
        2
    ) AS meddic_completeness,
    min(c.lowest) FILTER (WHERE c.state = 'open') AS lowest_meddic_completeness
FROM (
    SELECT
        o.tenant_id,
        o.account_id,
        o.currency,
        s.state,
        count(*) AS opportunities,
        sum(o.amount) AS amount,
        min(o.close_date) AS next_close_date,
        sum(o.meddic_completeness) AS completeness,
        count(o.meddic_completeness) AS known,
        min(o.meddic_completeness) AS lowest
    FROM :"application".opportunities AS o
    CROSS JOIN LATERAL (
        SELECT CASE WHEN o.stage::text IN ('closed_won', 'closed_lost') THEN o.stage::text ELSE 'open' END AS state
    ) AS s
    WHERE o.account_id IS NOT NULL
    GROUP BY o.tenant_id, o.account_id, o.currency, s.state
) AS c
GROUP BY c.tenant_id, c.account_id;
COMMENT ON VIEW pg_temp.account_360 IS
'one row per account that has opportunities: how many, the open amounts by currency, and how well its open deals are '
'known';
COMMENT ON COLUMN pg_temp.account_360.meddic_completeness IS
'round(avg(opportunities.meddic_completeness), 2) of those not closed';
COMMENT ON COLUMN pg_temp.account_360.lowest_meddic_completeness IS
'min(opportunities.meddic_completeness) of those not closed';

-- 2. Views that exist stay: print what they lack.

CREATE TEMP VIEW deal_sync_wanted AS
SELECT
    c.oid,
    c.relname AS name,
    obj_description(c.oid, 'pg_class') AS description,
    to_regclass(format('%I.%I', :'schema', c.relname)) AS present
FROM pg_class AS c
WHERE
    c.oid IN (
        'pg_temp.opportunity_pipeline'::regclass, 'pg_temp.rpt_account_health'::regclass,
        'pg_temp.account_360'::regclass
    );
CREATE TEMP VIEW deal_sync_lacking AS
SELECT
    format('%I.%I', :'schema', w.name) AS "view that is there",
    a.attname AS "column to add",
    format_type(a.atttypid, a.atttypmod) AS type,
    col_description(w.oid, a.attnum) AS definition
FROM deal_sync_wanted AS w
INNER JOIN pg_attribute AS a ON a.attrelid = w.oid
WHERE
    w.present IS NOT NULL AND col_description(w.oid, a.attnum) IS NOT NULL
    AND NOT EXISTS (
        SELECT FROM pg_attribute AS p
        WHERE p.attrelid = w.present AND p.attname = a.attname AND p.attnum > 0 AND NOT p.attisdropped
    )
ORDER BY w.name, a.attnum;

SELECT count(*) > 0 AS lacking FROM deal_sync_lacking \gset
\if :lacking
TABLE deal_sync_lacking;
\endif
SELECT
    format(CASE WHEN w.present IS NULL THEN '%I.%I: made' ELSE '%I.%I: is there, unchanged' END, :'schema', w.name)
        AS "views"
FROM deal_sync_wanted AS w
ORDER BY 1;

-- 3. Views that do not exist are created.

SELECT s.statement
FROM deal_sync_wanted AS w
CROSS JOIN LATERAL (
    SELECT 1 AS place, format(
        'CREATE VIEW %I.%I WITH (security_invoker = true) AS %s', :'schema', w.name, pg_get_viewdef(w.oid)
    ) AS statement
    UNION ALL
    SELECT 2, format('COMMENT ON VIEW %I.%I IS %L', :'schema', w.name, w.description)
    UNION ALL
    SELECT 3, format('COMMENT ON COLUMN %I.%I.%I IS %L', :'schema', w.name, a.attname, col_description(w.oid, a.attnum))
    FROM pg_attribute AS a
    WHERE a.attrelid = w.oid AND col_description(w.oid, a.attnum) IS NOT NULL
) AS s
WHERE w.present IS NULL
ORDER BY w.name, s.place
\gexec

DROP VIEW
    deal_sync_lacking, deal_sync_wanted,
    pg_temp.opportunity_pipeline, pg_temp.rpt_account_health, pg_temp.account_360;
COMMIT;
