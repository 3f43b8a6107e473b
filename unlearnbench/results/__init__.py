"""Tables of results in Parquet files."""
