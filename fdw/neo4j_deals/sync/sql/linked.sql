SELECT coalesce(array_agg(DISTINCT link.interaction_id), '{}')
FROM {{ staging | sql }} AS s
CROSS JOIN LATERAL (VALUES {% for c in columns if c.link -%}
    ({{ c.source | sql }}){{ ", " if not loop.last }}
{%- endfor %}) AS link (interaction_id)
WHERE s.row_number = ANY ($1) AND link.interaction_id IS NOT NULL
