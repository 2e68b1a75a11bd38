import argparse, sys
from tests.sim.run import run_seed
parser = argparse.ArgumentParser()
parser.add_argument("--seed", type=int)
parser.add_argument("--story", action="store_true")
a = parser.parse_args()
o = run_seed(a.seed, story=a.story)
print("\n".join(o.story)); print(o.failure or "holds")
