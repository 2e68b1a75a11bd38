"""Single-writer state machines, and the shell that Ray runs around them.

`core/` is pure; everything beside it is the shell. Only this package imports Ray, so the one
environment line that Ray must see before its import stands here.
"""

import os

# Under `uv run` Ray would zip the tree and run copied files from a second environment.
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
