SELECT DISTINCT row_number FROM (
{{ missing_links | sql }}) AS missing
