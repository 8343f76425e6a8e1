{# By the interactions of the batch ($2), with a hash: the planner may take the table for empty (after an ANALYZE while
   it is filled), and a nested loop over a table without an index on the pair would take minutes. #}
SELECT s.row_number, link.interaction_id, o.id AS entity_id
FROM {{ staging | sql }} AS s
CROSS JOIN LATERAL (
    {{ deal | sql(4) }}
) AS o
CROSS JOIN LATERAL (VALUES {% for c in columns if c.link -%}
    ({{ c.source | sql }}){{ ", " if not loop.last }}
{%- endfor %}) AS link (interaction_id)
WHERE
    s.row_number = ANY ($1)
    AND link.interaction_id IS NOT NULL
    AND (link.interaction_id, o.id) NOT IN (
        SELECT l.interaction_id, l.entity_id
        FROM {{ links | sql }} AS l
        WHERE
            l.tenant_id = {{ tenant | sql }}::uuid
            AND l.interaction_id = ANY ($2)
            AND l.entity_type::text = 'opportunity'
            AND l.entity_id IS NOT NULL
    )
