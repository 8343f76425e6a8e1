{% if not differing %}
false
{% else %}
ROW(
    {% for c in differing %}
    t.{{ c.target | ident }}{{ "," if not loop.last }}
    {% endfor %}
)::record OPERATOR(pg_catalog.*<>) ROW(
    {% for c in differing %}
    {{ c.updated | sql }}{{ "," if not loop.last }}
    {% endfor %}
)::record
{% endif %}
