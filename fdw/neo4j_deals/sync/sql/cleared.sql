{# By column, how many values of the rows $1 a MERGE would replace with NULL. #}
SELECT coalesce(jsonb_object_agg(c.name, c.times) FILTER (WHERE c.times > 0), '{}')
FROM (
    SELECT
        ARRAY[
            {% for c in overwritten %}
            count(*) FILTER (WHERE t.{{ c.target | ident }} IS NOT NULL AND ({{ c.updated | sql }}) IS NULL)
            {{- "," if not loop.last }}
            {% endfor %}
        ] AS counts
    FROM (
        {{ source | sql(8) }}
    ) AS s
    CROSS JOIN LATERAL (
        {{ at_place | sql(8) }}
    ) AS t
) AS n
CROSS JOIN unnest(
    ARRAY[
        {% for c in overwritten %}
        {{ c.target | literal }}{{ "," if not loop.last }}
        {% endfor %}
    ]::text[],
    n.counts
) AS c (name, times)
