MERGE INTO {{ target | sql }} AS t
USING (
    {% if kind == "deal" %}
    {{ source | sql(4) }}
    {% if staged %}
    WHERE (SELECT _deal_sync.plan_freely())
    ORDER BY s.row_number
    {% endif %}
    {% else %}
    SELECT *
    FROM (
        {{ source | sql(8) }}
        {% if staged %}
        WHERE (SELECT _deal_sync.plan_freely())
        {% endif %}
    ) AS s
    WHERE
        {{ "s.landed_id IS NOT NULL OR " if updated }}s."landed deal" IS NOT NULL
        AND s.{{ number | ident }} IS NOT NULL
        AND s."number taken by" IS NULL
    {% endif %}
) AS s
ON {{ matching | sql }}
{% if updated %}
WHEN MATCHED AND {{ differs | sql }} THEN UPDATE SET
    {% for c in updated %}
    {{ c.target | ident }} = {{ c.updated | sql }}{{ "," if stamp or not loop.last }}
    {% endfor %}
    {% if stamp %}
    {{ stamp | ident }} = now()
    {% endif %}
{% endif %}
WHEN NOT MATCHED THEN INSERT (
    id,
    tenant_id,
    {{ owner_target | ident }}{{ "," if inserted or stamp }}
    {% for c in inserted %}
    {{ c.target | ident }}{{ "," if stamp or not loop.last }}
    {% endfor %}
    {% if stamp %}
    {{ stamp | ident }}
    {% endif %}
) VALUES (
    s.{{ key | ident }},
    {{ tenant | sql }}::uuid,
    {% if kind == "deal" %}
    s.{{ key | ident }}{{ "," if inserted or stamp }}
    {% else %}
    s."landed deal"{{ "," if inserted }}
    {% endif %}
    {% for c in inserted %}
    {{ c.inserted | sql }}{{ "," if stamp or not loop.last }}
    {% endfor %}
    {% if stamp %}
    now()
    {% endif %}
)
