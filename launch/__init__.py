"""Where processes start: the only code that knows both `partial_fc` and `data_pipeline`."""
