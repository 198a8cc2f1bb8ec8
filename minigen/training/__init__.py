"""Training: the loop and the run folder (run.py), checkpoints, progress, figures. Start at run.py."""
