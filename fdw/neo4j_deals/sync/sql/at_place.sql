{# The row that the source `s` has found. OFFSET keeps the planner from joining the whole table instead. #}
SELECT k.*
FROM {{ target | sql }} AS k
WHERE k.ctid = s."landed place" AND k.tableoid = s."landed part"
OFFSET 0
