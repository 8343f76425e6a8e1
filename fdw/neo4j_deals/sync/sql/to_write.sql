SELECT
    coalesce(array_agg(p.row_number ORDER BY p.row_number), '{}') AS rows,
    count(*) FILTER (WHERE p.state <> 'new') AS changes
FROM {{ plan_table | sql }} AS p
WHERE p.state IN ('new', 'changed', 'adopted')
