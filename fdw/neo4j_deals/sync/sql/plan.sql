{% macro held_back() %}
{% for c in held_back_columns %}
        WHEN s.{{ c.misfit_name | ident }}
            {%- if kind == "deal" and not c.overwrites %} AND t.{{ c.target | ident }} IS NULL{% endif %} THEN
            jsonb_build_object(
                'column', {{ c.name | literal -}}
                , 'message', 'rejected because of a misfit', 'sqlstate', '22000',
                'value', left(raw.{{ c.name | ident }}::text, {{ shown | literal }})
            ) || coalesce(s.conversion_errors -> {{ c.name | literal }}, '{}')
{% endfor %}
{% endmacro %}
{# What becomes of each staged row. #}
{% if kind == "deal" %}
SELECT
    s.row_number,
    s."landed place" AS place,
    s."landed part" AS part,
    CASE
        WHEN s.reject IS NOT NULL THEN s.reject
{{ held_back() -}}
    {{ "    " }}END AS reject,
    CASE WHEN s.shadows THEN 'duplicate opportunity: a row has the deal''s id, another one its graph id' END AS note,
    CASE
        WHEN t.id IS NULL THEN 'new'
        WHEN t.graph_opportunity_id IS NULL THEN 'adopted'
        WHEN {{ differs | sql(8) }} THEN 'changed'
        ELSE 'unchanged'
    END AS state
FROM (
    {{ source | sql(4) }}
) AS s
INNER JOIN {{ staging | sql }} AS raw USING (row_number)
LEFT JOIN LATERAL (
    {{ at_place | sql(4) }}
) AS t ON true
{% else %}
SELECT
    s.row_number,
    s."landed place" AS place,
    s."landed part" AS part,
    CASE
        WHEN s.landed_id IS NOT NULL AND NOT coalesce(s.reject ? 'even_if_there', false) THEN NULL
        WHEN s.reject IS NOT NULL AND NOT (s.reject ? 'ahead' AND NOT EXISTS (
            SELECT FROM jsonb_array_elements_text(s.reject -> 'ahead') AS a (id)
            CROSS JOIN LATERAL (SELECT a.id::uuid AS id) AS ahead
            LEFT JOIN LATERAL (
                {{ ahead | sql(16) }}
            ) AS l ON true
            WHERE l.id IS NULL
        )) THEN s.reject
        WHEN s.{{ number | ident }} IS NULL THEN NULL
        WHEN s."landed deal" IS NULL THEN jsonb_build_object(
            'column', {{ owner | literal }}, 'sqlstate', '23503', 'value', s.{{ owner | ident }}::text,
            'message', 'its deal is not synced yet; it is retried automatically'
        )
        WHEN s."number taken by" IS NOT NULL THEN jsonb_build_object(
            'column', {{ number | literal }}, 'sqlstate', '23505', 'value', s.{{ number | ident }}::text,
            'message', format('duplicate version number: version %s has it', s."number taken by")
        )
{{ held_back() -}}
    {{ "    " }}END AS reject,
    CASE WHEN s.landed_id IS NULL AND s.{{ number | ident }} IS NULL THEN 'version without a number' END AS note,
    CASE
        {% if completes %}
        WHEN t.id IS NOT NULL AND {{ differs | sql(8) }} THEN 'changed'
        {% endif %}
        WHEN s.landed_id IS NOT NULL THEN 'unchanged'
        WHEN s.{{ number | ident }} IS NULL THEN 'none'
        ELSE 'new'
    END AS state
FROM (
    {{ source | sql(4) }}
) AS s
INNER JOIN {{ staging | sql }} AS raw USING (row_number)
{% if completes %}
LEFT JOIN LATERAL (
    {{ at_place | sql(4) }}
) AS t ON true
{% endif %}
{% endif %}
ORDER BY s.row_number
