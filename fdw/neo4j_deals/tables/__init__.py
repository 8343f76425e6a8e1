"""The foreign tables: a SELECT, with or without Multicorn2, and the import of other labels."""
