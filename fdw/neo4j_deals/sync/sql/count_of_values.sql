SELECT
    jsonb_object(
        ARRAY[
            {% for c in columns %}
            {{ c.target | literal }}{{ "," if not loop.last }}
            {% endfor %}
        ]::text[],
        ARRAY[
            {% for c in columns %}
            count(t.{{ c.target | ident }}){{ "," if not loop.last }}
            {% endfor %}
        ]::text[]
    )
FROM {{ target | sql }} AS t
WHERE t.tenant_id = $1
