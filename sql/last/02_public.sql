-- In: all routines. Out: nobody may run them, until somebody is granted the sync. The last file, so that none is forgotten.

REVOKE EXECUTE ON ALL ROUTINES IN SCHEMA deal_sync, _deal_sync FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION @extschema@.sync_deals(uuid, text, boolean, boolean, text) FROM PUBLIC;
