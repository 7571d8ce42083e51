"""People drawn by arithmetic: any number of identities, no download."""
