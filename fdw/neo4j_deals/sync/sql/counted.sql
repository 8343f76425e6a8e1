{# A row that another session has inserted meanwhile ($1) does not count as inserted. #}
SELECT
    count(*) FILTER (WHERE p.landed AND p.state = 'new' AND NOT p.met) AS inserted,
    count(*) FILTER (WHERE p.landed AND p.state = 'adopted') AS adopted,
    count(*) FILTER (WHERE p.landed AND (p.state = 'changed' OR p.state = 'new' AND p.met)) AS updated,
    count(*) FILTER (WHERE p.state = 'unchanged') AS unchanged,
    count(*) FILTER (WHERE p.landed AND p.state = 'changed') AS completed,
    coalesce(array_agg(p.row_number) FILTER (WHERE p.landed OR p.state = 'unchanged'), '{}') AS there,
    coalesce(array_agg(p.row_number) FILTER (WHERE p.sqlstate IS NOT NULL), '{}') AS failed,
    (
        SELECT coalesce(jsonb_object_agg(r.reason, r.times), '{}')
        FROM (
            SELECT format('%s %s', f.sqlstate, f.message) AS reason, count(*) AS times
            FROM {{ plan_table | sql }} AS f
            WHERE f.sqlstate IS NOT NULL
            GROUP BY 1
        ) AS r
    ) AS reasons
FROM (
    SELECT
        w.*, w.row_number = ANY ($1) AS met,
        w.sqlstate IS NULL AND w.state IN ('new', 'changed', 'adopted') AS landed
    FROM {{ plan_table | sql }} AS w
) AS p
