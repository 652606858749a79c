"""Prediction on many machines: images in shards, a pool of workers, and a folder of Parquet files."""
