"""Class rows: who holds which, which are drawn, how they move and are rounded, what is known of them."""
