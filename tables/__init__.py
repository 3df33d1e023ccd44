"""How tables are read: CSV and Parquet files, columns of text and dates as numbers, converted files, new rows."""
