{# In the order of the keys: a MERGE goes through the rows in whatever order its join has. #}
SELECT
FROM {{ plan_table | sql }} AS p
INNER JOIN {{ target | sql }} AS t ON t.ctid = p.place
WHERE t.tenant_id = {{ tenant | sql }}::uuid AND p.state IN ('changed', 'adopted')
ORDER BY p.row_number
FOR NO KEY UPDATE OF t
