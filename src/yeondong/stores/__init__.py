"""The database side: one store per database, and the tables that they share."""
