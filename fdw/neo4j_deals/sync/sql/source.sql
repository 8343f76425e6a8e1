{% macro uuid(name) -%}
    {% if staged %}s.{{ name | ident }}{% else %}_deal_sync.to_uuid(s.{{ name | ident }}){% endif %}
{%- endmacro %}
SELECT
    {% if kind == "deal" %}
    coalesce(by_key.id, adopted.id) AS landed_id,
    by_key.id IS NOT NULL AND adopted.id IS NOT NULL AS shadows,
    {% else %}
    there.id AS landed_id,
    o.id AS "landed deal",
    taken.id AS "number taken by",
    {% endif %}
    {% if staged %}
    {% if kind == "deal" %}
    {# Not coalesce(): the planner takes it for leaky, and would put a policy's condition before it. #}
    CASE WHEN by_key.id IS NULL THEN adopted."landed place" ELSE by_key."landed place" END AS "landed place",
    CASE WHEN by_key.id IS NULL THEN adopted."landed part" ELSE by_key."landed part" END AS "landed part",
    {% else %}
    there."landed place",
    there."landed part",
    {% endif %}
    s.row_number,
    s.element_id,
    s.graph_id,
    s.reject,
    s.conversion_errors,
    {% endif %}
    {% for c in columns %}
    {{ c.selected | sql }} AS {{ c.name | ident }}{{ "," if c.misfit or not loop.last }}
    {% if c.misfit %}
    {{ c.misfit | sql }} AS {{ c.misfit_name | ident }}{{ "," if not loop.last }}
    {% endif %}
    {% endfor %}
FROM (
    {{ rows | sql(4) }}
) AS s
{# A deal's row: the one with its graph id, or else the one whose id it is and that has no graph id yet (adoption). #}
{% if staged and kind == "deal" %}
LEFT JOIN LATERAL (
    {{ by_key | sql(4) }}
) AS by_key ON true
LEFT JOIN LATERAL (
    {{ by_id | sql(4) }}
) AS adopted ON adopted.graph_opportunity_id IS NULL
{% elif staged %}
LEFT JOIN LATERAL (
    {{ by_key | sql(4) }}
) AS there ON true
LEFT JOIN LATERAL (
    {{ deal | sql(4) }}
) AS o ON true
LEFT JOIN LATERAL (
    {{ taken | sql(4) }}
) AS taken ON true
{% elif kind == "deal" %}
LEFT JOIN {{ target | sql }} AS by_key
    ON by_key.tenant_id = {{ tenant | sql }}::uuid AND by_key.graph_opportunity_id = {{ uuid(key) }}
LEFT JOIN {{ target | sql }} AS adopted
    ON adopted.tenant_id = {{ tenant | sql }}::uuid AND adopted.id = {{ uuid(key) -}}
    {{ " " }}AND adopted.graph_opportunity_id IS NULL
{% else %}
LEFT JOIN {{ target | sql }} AS there
    ON there.tenant_id = {{ tenant | sql }}::uuid AND there.id = {{ uuid(key) }}
LEFT JOIN {{ deals | sql }} AS o
    ON o.tenant_id = {{ tenant | sql }}::uuid AND o.graph_opportunity_id = {{ uuid(owner) }}
LEFT JOIN LATERAL (
    SELECT v.id
    FROM {{ target | sql }} AS v
    WHERE v.tenant_id = {{ tenant | sql }}::uuid AND v.opportunity_id = o.id AND v.version_number = s.{{
        number | ident }}
    LIMIT 1
) AS taken ON true
{% endif %}
