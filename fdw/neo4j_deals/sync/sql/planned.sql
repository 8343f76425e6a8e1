INSERT INTO {{ plan_table | sql }} (row_number, place, part, refusal, note, state)
SELECT p.row_number, p.place, p.part, p.refusal, p.note, CASE WHEN p.refusal IS NULL THEN p.state ELSE 'rejected' END
FROM (
    {{ plan | sql(4) }}
) AS p
