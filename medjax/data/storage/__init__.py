"""Where records are kept for training: mapped arrays, the cache, shards in the TFDS layout."""
