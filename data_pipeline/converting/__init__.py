"""Any form into another, part by part; a conversion that was killed goes on."""
