"""A step over a shard's classes: by blocks, by Gram matrices, or by a look for what is near."""
