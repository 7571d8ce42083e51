"""What each command takes: its arguments alone, so that help and a wrong word wait for no library."""
