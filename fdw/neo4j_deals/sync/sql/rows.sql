{% macro uuid(name) %}_deal_sync.to_uuid(f.{{ name | ident }}){% endmacro %}
{% if staged %}
SELECT *
FROM {{ staging | sql }} AS f
WHERE ($1::bigint[] IS NULL OR f.row_number = ANY ($1))
{% else %}
{# One of the nodes that share a key; both spellings of the tenant, by a join: Multicorn cannot push a computed list. #}
SELECT DISTINCT ON ({% if kind == "deal" %}{{ uuid(key) }}{% else -%}
    {{ uuid(owner) }}, f.{{ number | ident }}{% endif %}) f.*
FROM (
    SELECT lower(current_setting('app.tenant_id')) UNION SELECT upper(current_setting('app.tenant_id'))
) AS spelling (id)
INNER JOIN {{ relation | sql }} AS f ON f.{{ tenant_column | ident }} = spelling.id
WHERE
    {{ uuid(key) }} IS NOT NULL
    {% for c in columns if c.on_misfit == "reject" %}
    AND NOT coalesce(jsonb_exists(f.conversion_errors, {{ c.name | literal }}::text), false)
    {% endfor %}
{% if kind == "deal" %}
ORDER BY {{ uuid(key) }},{% for name in dated_by %} f.{{ name | ident }} DESC NULLS LAST,{% endfor %} f.element_id
{% else %}
ORDER BY {{ uuid(owner) }}, f.{{ number | ident }},
    {%- for name in dated_by %} f.{{ name | ident }},{% endfor %} f.{{ key | ident }}
{% endif %}
{% endif %}
