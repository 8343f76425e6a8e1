INSERT INTO {{ links | sql }} (
    {% for name, value in link_columns %}
    {{ name | ident }},
    {% endfor %}
    tenant_id,
    interaction_id,
    entity_type,
    entity_id
)
SELECT
    {% for name, value in link_columns %}
    {{ value | sql }},
    {% endfor %}
    {{ tenant | sql }}::uuid,
    pair.interaction_id,
    'opportunity',
    pair.entity_id
FROM (
    SELECT DISTINCT m.interaction_id, m.entity_id
    FROM (
        {{ missing_links | sql(8) }}
        AND (SELECT _deal_sync.plan_freely())
    ) AS m
) AS pair
ON CONFLICT DO NOTHING
