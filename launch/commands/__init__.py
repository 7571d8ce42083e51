"""The commands of one process: plan, pack, inspect, verify, import, checkpoint, top."""
