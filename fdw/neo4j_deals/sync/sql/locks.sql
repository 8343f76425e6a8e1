{# In the order of the keys: a MERGE takes rows in the order of its join. #}
SELECT
FROM (
    SELECT p.place AS "landed place", p.part AS "landed part"
    FROM {{ plan_table | sql }} AS p
    WHERE p.state IN ('changed', 'adopted')
    ORDER BY p.row_number
) AS s
CROSS JOIN LATERAL (
    {{ at_place | sql(4) }}
    FOR NO KEY UPDATE
) AS t
