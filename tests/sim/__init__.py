"""The deterministic simulator: whole clusters of the real code, driven by one seed.

`python -m tests.sim --seed 7 --story` replays a seed and tells what happened; `make sim SEEDS=n
FIRST=seed` runs many. `run.py` says what a seed is, `checker.py` what is checked at each step.
"""
