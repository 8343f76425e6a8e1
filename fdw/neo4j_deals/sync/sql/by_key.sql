{# The row with this key. A range, cut after the first in its order, in a run without enable_sort: whatever the statistics
   say, the planner has no way but an index in that order. Of an equality, every order would be the right one. #}
{% macro names() %}
{%- for name, value in look_up %}k.{{ name | ident }}{{ ", " if not loop.last }}{% endfor %}
{% endmacro %}
{% macro values() %}
{%- if look_up | length > 1 %}({% endif %}
{%- for name, value in look_up %}{{ value | sql }}{{ ", " if not loop.last }}{% endfor %}
{%- if look_up | length > 1 %}){% endif %}
{% endmacro %}
SELECT k.*, k.ctid AS place, k.tableoid AS part
FROM {{ table | sql }} AS k
WHERE
    k.tenant_id = {{ tenant | sql }}::uuid
    AND {% if look_up | length > 1 %}({{ names() }}){% else %}{{ names() }}{% endif %} BETWEEN {{ values() }} AND {{ values() }}
ORDER BY {{ names() }}
LIMIT 1
