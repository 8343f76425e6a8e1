{# A new row must exist afterwards, and a changed one have a new ctid. $1: rows that another session has inserted. #}
UPDATE {{ plan_table | sql }} AS p
SET
    sqlstate = CASE WHEN p.row_number = ANY ($1) THEN '23505' ELSE '09000' END,
    message = CASE WHEN p.row_number = ANY ($1) THEN $2 ELSE 'a trigger of the table returned NULL' END
FROM {{ staging | sql }} AS s
LEFT JOIN LATERAL (
    {{ by_key | sql(4) }}
) AS t ON true
WHERE
    s.row_number = p.row_number AND p.sqlstate IS NULL AND p.state IN ('new', 'changed', 'adopted')
    AND (t.id IS NULL OR (t."landed place" = p.place AND t."landed part" = p.part))
