UPDATE {{ plan_table | sql }} AS p
SET
    sqlstate = f.sqlstate, message = f.message, server_text = f.server_text,
    null_in = CASE WHEN f.sqlstate = '23502' AND f.relation = {{ target | literal }} THEN f.column_name END
FROM unnest($1::_deal_sync.failure[]) AS f
WHERE f.row_number = p.row_number
