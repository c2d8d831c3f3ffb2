"""LeRobot data sets, versions 2.0, 2.1 and 3.0: parquet tables, mp4 videos and JSON facts in a folder."""
