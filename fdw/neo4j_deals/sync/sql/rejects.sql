{# What did not land, by node. A NULL that the table rejected stands for a misfit, if the node has one.
   $1: the rows that have landed, $2: the links that failed. #}
SELECT coalesce(jsonb_agg(jsonb_build_object(
    'kind', f.kind, 'level', f.level, 'graph_id', s.graph_id, 'element_id', s.element_id, 'column_name', f."column",
    'sqlstate', f.sqlstate, 'message', f.message, 'value', f.value, 'server_text', f.server_text
)), '[]')
FROM (
    SELECT
        {{ kind | literal }} AS kind, 'row' AS level, p.row_number, p.reject ->> 'column' AS "column",
        p.reject ->> 'sqlstate' AS sqlstate, p.reject ->> 'message' AS message, p.reject ->> 'value' AS value,
        NULL AS server_text
    FROM {{ plan_table | sql }} AS p
    WHERE p.reject IS NOT NULL
    UNION ALL
    SELECT {{ kind | literal }}, 'note', p.row_number, NULL, '00000', p.note, NULL, NULL
    FROM {{ plan_table | sql }} AS p
    WHERE p.reject IS NULL AND p.note IS NOT NULL
    UNION ALL
    SELECT
        {{ kind | literal }}, 'row', p.row_number, m.name, coalesce(e.error ->> 'sqlstate', p.sqlstate),
        coalesce(e.error ->> 'message', p.message), e.error ->> 'value', p.server_text
    FROM {{ plan_table | sql }} AS p
    INNER JOIN {{ staging | sql }} AS raw USING (row_number)
    LEFT JOIN (VALUES {% for c in written -%}
        ({{ c.name | literal }}, {{ c.target | literal }}){{ ", " if not loop.last }}
    {%- endfor %}) AS m (name, target)
        ON m.target = p.null_in
    CROSS JOIN LATERAL (SELECT raw.conversion_errors -> m.name) AS e (error)
    WHERE p.sqlstate IS NOT NULL
    UNION ALL
    SELECT 'link', 'row', l.row_number, NULL, l.sqlstate, l.message, NULL, l.server_text
    FROM unnest($2::_deal_sync.failure[]) AS l
    UNION ALL
    SELECT {{ kind | literal }}, 'value', v.row_number, v.field, v.error ->> 'sqlstate',{{ " " -}}
        concat(v.error ->> 'message', v.remark), v.error ->> 'value', NULL
    FROM (
        {{ misfits | sql(8) }}
    ) AS v
) AS f
INNER JOIN {{ staging | sql }} AS s USING (row_number)
