"""SQL over files in a pool: writes a Parquet file and asks it a question. pip install duckdb duckdb-extension-httpfs

Where the internet is reached, `INSTALL httpfs; LOAD httpfs` does without the second package.
"""

import os
import pathlib

import duckdb
import duckdb_extension_httpfs

db = duckdb.connect()
extension = next(pathlib.Path(duckdb_extension_httpfs.__file__).parent.rglob("httpfs.duckdb_extension"))
db.execute(f"LOAD '{extension}'")
db.execute(
    f"""CREATE SECRET palm (TYPE s3, KEY_ID '{os.environ["AWS_ACCESS_KEY_ID"]}', SECRET '{os.environ["AWS_SECRET_ACCESS_KEY"]}',
    REGION 'us-east-1', ENDPOINT '127.0.0.1:9000', URL_STYLE 'path', USE_SSL false)"""
)
db.execute("COPY (SELECT range AS hour, range % 7 AS tide FROM range(1000)) TO 's3://tables/tides.parquet'")
(highest,) = db.execute("SELECT max(tide) FROM 's3://tables/*.parquet'").fetchone()
assert highest == 6
print("highest tide:", highest)
