{# $2: barred deals, $3: the tenant. #}
SELECT
    {{ kind | literal }},
    CASE
        WHEN s.{{ owner | ident }} = ANY ($2) THEN 'rejected'
        WHEN p.reject ->> 'sqlstate' = '23503' THEN 'awaiting its deal'
        WHEN p.reject IS NOT NULL OR p.state = 'none' THEN 'rejected'
        WHEN p.state = 'unchanged' THEN 'matching'
        WHEN r.element_id IS NOT NULL THEN 'rejected'
        WHEN p.state = 'changed' THEN 'differing'
        ELSE 'missing'
    END,
    s.element_id,
    s.graph_id,
    s.{{ key | ident }},
    s.{{ owner | ident }},
    {% if kind == "deal" %}
    NULL::uuid,
    {% else %}
    CASE WHEN p.reject ->> 'sqlstate' = '23505' THEN (
        SELECT taken.id
        FROM (
            {{ deal | sql(12) }}
        ) AS o
        CROSS JOIN LATERAL (
            {{ taken | sql(12) }}
        ) AS taken
    ) END,
    {% endif %}
    ARRAY[{% for c in columns if c.link %}{{ c.source | sql }}{{ ", " if not loop.last }}{% endfor %}]::uuid[],
    NULL,
    NULL,
    NULL
FROM (
    {{ plan | sql(4) }}
) AS p
INNER JOIN {{ staging | sql }} AS s USING (row_number)
LEFT JOIN (
    SELECT DISTINCT j.element_id
    FROM deal_sync.rejects AS j
    WHERE j.tenant_id = $3 AND j.kind = {{ kind | literal }} AND j.level = 'row'
) AS r ON r.element_id = s.element_id
