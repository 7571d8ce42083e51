"""Where processes start: the only code that imports both libraries."""
