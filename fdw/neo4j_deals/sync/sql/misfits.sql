{# Of the rows that have landed ($1). A misfit in a column that an existing row keeps counts if the row is new, and as
   long as the row has NULL there, or the text that landed without the invalid characters. #}
WITH s AS (
    {% if cast_columns %}
    {{ source | sql(4) }}
    {% else %}
    SELECT * FROM {{ staging | sql }} AS f WHERE f.row_number = ANY ($1) AND f.conversion_errors IS NOT NULL
    {% endif %}
),

lost (row_number, field, error) AS (
    SELECT s.row_number, e.key, e.value
    FROM s
    CROSS JOIN LATERAL jsonb_each(s.conversion_errors) AS e
    {% for c in cast_columns %}
    UNION ALL
    SELECT
        s.row_number, {{ c.name | literal }},
        _deal_sync.cast_error(raw.{{ c.name | ident }}::text, {{ c.target_family | literal -}}
            ::regtype, {{ c.target_modifier | literal }})
        || jsonb_build_object('value', left(raw.{{ c.name | ident }}::text, {{ shown | literal }}), 'landed', false)
    FROM s
    INNER JOIN {{ staging | sql }} AS raw USING (row_number)
    WHERE s.{{ c.misfit_name | ident }} AND NOT coalesce(jsonb_exists(s.conversion_errors, {{ c.name | literal -}}
        ), false)
    {% endfor %}
)

SELECT
    s.row_number, lost.field, lost.error,
    {% if kind == "version" %}
    CASE
        WHEN NOT coalesce((lost.error -> 'landed')::boolean, false)
            THEN ' (only a replay fills the NULL in a landed version: fix the node and replay it, or set it by hand)'
    END AS remark
    {% else %}
    CASE
        WHEN m.write = 'insert' AND NOT coalesce((lost.error -> 'landed')::boolean, false)
            THEN ' (the column of an existing row is not written, so this is not retried: set it by hand,'
                ' or ALTER the column''s option write to ''fill'')'
    END AS remark
    {% endif %}
FROM lost
INNER JOIN {{ staging | sql }} AS s USING (row_number)
INNER JOIN {{ plan_table | sql }} AS p USING (row_number)
INNER JOIN (VALUES {% for c in mapped -%}
    ({{ c.name | literal }}, {{ c.write | literal }}){{ ", " if not loop.last }}
{%- endfor %}) AS m (name, write)
    ON m.name = lost.field
LEFT JOIN LATERAL (
    {{ by_key | sql(4) }}
) AS t ON true
WHERE
    p.state = 'new'
    OR CASE lost.field
        {% for c in keeping %}
        WHEN {{ c.name | literal }} THEN
            t.{{ c.target | ident }} IS NULL
            OR coalesce((lost.error -> 'landed')::boolean, false)
            AND ROW(t.{{ c.target | ident }})::record OPERATOR(pg_catalog.*=) ROW({{ c.selected | sql }})::record
        {% endfor %}
        {% if not keeping %}
        WHEN {{ key | literal }} THEN true
        {% endif %}
        ELSE true
    END
