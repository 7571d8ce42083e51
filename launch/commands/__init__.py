"""The commands of one process: plan, pack, align, inspect, verify, import, checkpoint, top."""
