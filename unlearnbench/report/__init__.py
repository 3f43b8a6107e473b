"""Tables from result rows. Reads Parquet only; imports no torch."""
