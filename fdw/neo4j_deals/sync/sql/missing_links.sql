{# Of the rows $1: each link that they lack, in the way of by_key.sql. Without an index on the interaction, by the
   interactions of the batch ($2), with a hash: a nested loop would read the table for each row. #}
SELECT s.row_number, link.interaction_id, o.id AS entity_id
FROM {{ staging | sql }} AS s
CROSS JOIN LATERAL (
    {{ deal | sql(4) }}
) AS o
CROSS JOIN LATERAL (VALUES {% for c in columns if c.link -%}
    ({{ c.source | sql }}){{ ", " if not loop.last }}
{%- endfor %}) AS link (interaction_id)
{% if links_have_index %}
LEFT JOIN LATERAL (
    SELECT l.entity_id
    FROM {{ links | sql }} AS l
    WHERE
        l.tenant_id = {{ tenant | sql }}::uuid
        AND l.interaction_id BETWEEN link.interaction_id AND link.interaction_id
        AND l.entity_type::text = 'opportunity'
        AND l.entity_id = o.id
    ORDER BY l.interaction_id
    LIMIT 1
) AS there ON true
{% endif %}
WHERE
    s.row_number = ANY ($1)
    AND link.interaction_id IS NOT NULL
    {% if links_have_index %}
    AND there.entity_id IS NULL
    {% else %}
    AND (link.interaction_id, o.id) NOT IN (
        SELECT l.interaction_id, l.entity_id
        FROM {{ links | sql }} AS l
        WHERE
            l.tenant_id = {{ tenant | sql }}::uuid
            AND l.interaction_id = ANY ($2)
            AND l.entity_type::text = 'opportunity'
            AND l.entity_id IS NOT NULL
    )
    {% endif %}
