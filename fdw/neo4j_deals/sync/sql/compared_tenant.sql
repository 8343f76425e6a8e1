{# $1: the tenant; $2: whether embeddings are compared; $3: whether the values that differ are listed. #}
WITH found AS MATERIALIZED (
    SELECT n.*
    FROM (VALUES ('deal'), ('version')) AS k (kind)
    CROSS JOIN LATERAL _deal_sync.compare_nodes(
        k.kind, $1, CASE WHEN $2 THEN '{}' ELSE _deal_sync.embedding_columns(k.kind) END, $3
    ) AS n
),

missing_deals AS MATERIALIZED (
    SELECT f.key FROM found AS f WHERE f.kind = 'deal' AND f.state = 'missing'
),

nodes AS MATERIALIZED (
    SELECT
        f.kind, f.element_id, f.graph_id, f.key, f.deal, f.taken_by, f.links,
        CASE
            WHEN f.state <> 'awaiting its deal' THEN f.state
            WHEN f.deal IN (SELECT m.key FROM missing_deals AS m) THEN 'missing'
            ELSE 'rejected'
        END AS state
    FROM found AS f
    WHERE f.state <> 'value'
),

deals AS MATERIALIZED (
    SELECT o.id, o.graph_opportunity_id AS key FROM {{ deals | sql }} AS o
    WHERE o.tenant_id = $1 AND o.graph_opportunity_id IS NOT NULL
),

by_key AS MATERIALIZED (
    SELECT n.kind, n.key, min(n.state) FILTER (WHERE n.state <> 'rejected') AS state
    FROM nodes AS n
    WHERE n.key IS NOT NULL
    GROUP BY n.kind, n.key
),

pairs AS MATERIALIZED (
    SELECT
        link.interaction_id, coalesce(d.id, n.deal) AS entity_id, min(n.deal::text) AS deal,
        bool_or(n.state <> 'rejected') AS is_expected, bool_or(r.element_id IS NOT NULL) AS is_rejected
    FROM nodes AS n
    LEFT JOIN deals AS d ON d.key = n.deal
    CROSS JOIN LATERAL unnest(n.links) AS link (interaction_id)
    LEFT JOIN (
        SELECT DISTINCT j.element_id FROM deal_sync.rejects AS j
        WHERE j.tenant_id = $1 AND j.kind = 'link' AND j.level = 'row'
    ) AS r ON r.element_id = n.element_id
    WHERE link.interaction_id IS NOT NULL AND n.deal IS NOT NULL
    GROUP BY link.interaction_id, coalesce(d.id, n.deal)
),

link_rows AS MATERIALIZED (
    SELECT DISTINCT l.interaction_id, l.entity_id FROM {{ links | sql }} AS l
    WHERE l.tenant_id = $1 AND l.entity_type::text = 'opportunity' AND l.entity_id IS NOT NULL
)

SELECT n.kind, n.state, NULL::text, n.graph_id, NULL::text, NULL::text, NULL::text, NULL::text FROM nodes AS n
UNION ALL
SELECT
    'deal', NULL, CASE WHEN b.key IS NULL THEN 'extra' ELSE coalesce(b.state, 'kept') END,
    d.key::text, d.id::text, NULL, NULL, NULL
FROM deals AS d
LEFT JOIN by_key AS b ON b.kind = 'deal' AND b.key = d.key
UNION ALL
SELECT
    'version', NULL,
    CASE
        WHEN b.key IS NOT NULL THEN coalesce(b.state, 'kept')
        WHEN v.id IN (SELECT t.taken_by FROM nodes AS t WHERE t.taken_by IS NOT NULL) THEN 'legacy'
        ELSE 'extra'
    END,
    d.key::text, v.id::text, NULL, NULL, NULL
FROM {{ versions | sql }} AS v
LEFT JOIN deals AS d ON d.id = v.opportunity_id
LEFT JOIN by_key AS b ON b.kind = 'version' AND b.key = v.id
WHERE v.tenant_id = $1 AND (d.id IS NOT NULL OR b.key IS NOT NULL)
UNION ALL
SELECT
    'link',
    CASE WHEN p.interaction_id IS NOT NULL THEN CASE
        WHEN NOT p.is_expected THEN 'rejected'
        WHEN l.interaction_id IS NOT NULL THEN 'matching'
        WHEN p.is_rejected THEN 'rejected'
        ELSE 'missing'
    END END,
    CASE WHEN l.interaction_id IS NOT NULL THEN CASE
        WHEN p.is_expected THEN 'matching'
        WHEN NOT p.is_expected THEN 'kept'
        WHEN d.id IS NULL THEN 'legacy'
        ELSE 'extra'
    END END,
    coalesce(p.deal, d.key::text, l.entity_id::text),
    coalesce(l.interaction_id, p.interaction_id)::text, NULL, NULL, NULL
FROM pairs AS p
FULL JOIN link_rows AS l ON l.interaction_id = p.interaction_id AND l.entity_id = p.entity_id
LEFT JOIN deals AS d ON d.id = l.entity_id
WHERE
    p.interaction_id IS NOT NULL OR d.id IS NOT NULL
    OR l.entity_id IN (SELECT g.key FROM deals AS g WHERE g.key <> g.id)
UNION ALL
SELECT f.kind, 'value', NULL, f.graph_id, NULL, f.column_name, f.graph_value, f.table_value
FROM found AS f
WHERE f.state = 'value'
