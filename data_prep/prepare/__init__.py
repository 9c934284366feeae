"""Videos to records: clips prepared, paired by their sound, written as shards."""
