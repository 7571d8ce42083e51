"""A million identities, packed, opened and trained on."""
