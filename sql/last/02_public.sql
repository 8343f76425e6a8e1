-- In: all routines. Out: nobody may call them before a grant. The last file, so that no routine is forgotten.

REVOKE EXECUTE ON ALL ROUTINES IN SCHEMA deal_sync, _deal_sync FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION @extschema@.sync_deals(uuid, text, boolean, boolean) FROM PUBLIC;
