"""The training engine: one loop, optimisers and schedules, checkpoints, run folders and progress."""
