SELECT coalesce(array_agg(DISTINCT u.row_number ORDER BY u.row_number), '{}')
FROM (
    {{ missing_links | sql(4) }}
) AS u
