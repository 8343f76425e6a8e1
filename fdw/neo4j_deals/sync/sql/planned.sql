INSERT INTO {{ plan_table | sql }} (row_number, place, part, reject, note, state)
SELECT p.row_number, p.place, p.part, p.reject, p.note, CASE WHEN p.reject IS NULL THEN p.state ELSE 'rejected' END
FROM (
    {{ plan | sql(4) }}
) AS p
