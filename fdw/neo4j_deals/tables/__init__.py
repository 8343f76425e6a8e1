"""The foreign tables: reading them in SQL, with or without Multicorn2, and importing other labels."""
