-- In: a server. Out: the roles, as SQL takes them, whose user mappings hold a password themselves.
SELECT CASE WHEN m.umuser = 0 THEN 'PUBLIC' ELSE quote_ident(m.usename) END AS role
FROM pg_user_mappings AS m
WHERE m.srvname = $1 AND _deal_sync.options_of(m.umoptions) ? 'password'
ORDER BY m.umuser
