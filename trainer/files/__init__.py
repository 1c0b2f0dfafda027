"""Tables read from CSV, TSV, JSON and Parquet files, however they are written."""
