-- Flows in: a new cluster's own database, by the image's entry point. Flows out: the extension in it.
CREATE EXTENSION deal_sync CASCADE;
SELECT current_database() AS home \gset
ALTER SYSTEM SET cron.database_name = :'home';
