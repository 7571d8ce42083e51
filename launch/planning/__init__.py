"""`partial-fc plan`: forecasts, rates, table and figure."""
