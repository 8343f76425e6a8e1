{# In the order of the keys: a MERGE takes rows in the order of its join. #}
SELECT
FROM {{ plan_table | sql }} AS p
INNER JOIN {{ target | sql }} AS t ON t.ctid = p.place
WHERE t.tenant_id = {{ tenant | sql }}::uuid AND p.state IN ('changed', 'adopted')
ORDER BY p.row_number
FOR NO KEY UPDATE OF t
