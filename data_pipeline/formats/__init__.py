"""Every form of a data set, told from its path by `by_path`. No form knows another."""
