"""A set made from a folder, from Omniglot's zips or by arithmetic."""
