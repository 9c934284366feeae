"""Videos to records: decode, landmarks, face crops, audio pairing, shards; and the synthetic talking heads."""
