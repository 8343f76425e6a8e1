SELECT
    {{ kind | literal }},
    'value',
    s.element_id,
    s.graph_id,
    s.{{ key | ident }},
    s.{{ owner | ident }},
    NULL::uuid,
    '{}'::uuid[],
    v.name,
    v.graph_value,
    v.table_value
FROM (
    {{ source | sql(4) }}
) AS s
INNER JOIN (
    {{ nodes | sql(4) }}
) AS n (kind, state, element_id, graph_id, key, deal, taken_by, links, name, graph_value, table_value)
    ON n.element_id = s.element_id AND n.state = 'differing'
CROSS JOIN LATERAL (
    {{ at_place | sql(4) }}
) AS t
CROSS JOIN LATERAL (
    VALUES
    {% for c in differing %}
    (
        {{ c.name | literal }},
        ROW(t.{{ c.target | ident }})::record OPERATOR(pg_catalog.*<>) ROW({{ c.updated | sql }})::record,
        ({{ c.updated | sql }})::text,
        t.{{ c.target | ident }}::text
    ){{ "," if not loop.last }}
    {% endfor %}
) AS v (name, differs, graph_value, table_value)
WHERE v.differs
