MERGE INTO {{ target | sql }} AS t
{% if kind == "deal" %}
USING (
    {{ source | sql }}
    {% if staged %}
    ORDER BY s.row_number
    {% endif %}
) AS s
ON {{ matching | sql }}
WHEN MATCHED AND {{ differs | sql }} THEN UPDATE SET
    {% for c in updated %}
    {{ c.target | ident }} = {{ c.updated | sql }}{{ "," if stamp or not loop.last }}
    {% endfor %}
    {% if stamp %}
    {{ stamp | ident }} = now()
    {% endif %}
WHEN NOT MATCHED THEN INSERT (
    id,
    tenant_id,
    graph_opportunity_id,
    {% for c in inserted %}
    {{ c.target | ident }}{{ "," if stamp or not loop.last }}
    {% endfor %}
    {% if stamp %}
    {{ stamp | ident }}
    {% endif %}
) VALUES (
    s.{{ key | ident }},
    {{ tenant | sql }}::uuid,
    s.{{ key | ident }},
    {% for c in inserted %}
    {{ c.inserted | sql }}{{ "," if stamp or not loop.last }}
    {% endfor %}
    {% if stamp %}
    now()
    {% endif %}
)
{% else %}
USING (
    SELECT *
    FROM (
    {{ source | sql }}
    ) AS s
    WHERE {% if updated %}s.landed_id IS NOT NULL OR {% endif %}s."landed deal" IS NOT NULL AND s.{{ number | ident }} IS NOT NULL AND s."number taken by" IS NULL
) AS s
ON {{ matching | sql }}
{% if updated %}
WHEN MATCHED AND {{ differs | sql }} THEN UPDATE SET
    {% for c in updated %}
    {{ c.target | ident }} = {{ c.updated | sql }}{{ "," if not loop.last }}
    {% endfor %}
{% endif %}
WHEN NOT MATCHED THEN INSERT (
    id,
    tenant_id,
    opportunity_id,
    {% for c in inserted %}
    {{ c.target | ident }}{{ "," if not loop.last }}
    {% endfor %}
) VALUES (
    s.{{ key | ident }},
    {{ tenant | sql }}::uuid,
    s."landed deal",
    {% for c in inserted %}
    {{ c.inserted | sql }}{{ "," if not loop.last }}
    {% endfor %}
)
{% endif %}
