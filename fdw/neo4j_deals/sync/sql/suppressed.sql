{# The rows $1 whose link is still missing, except those that failed ($3), each with the reason $4. #}
SELECT coalesce(array_agg(ROW(u.row_number, '09000', $4, NULL, NULL, NULL)::_deal_sync.failure), '{}')
FROM (
    SELECT DISTINCT m.row_number
    FROM (
        {{ missing_links | sql(8) }}
    ) AS m
    WHERE m.row_number <> ALL ($3)
) AS u
