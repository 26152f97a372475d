"""`python -m p2p_bench` is `p2p-bench`."""

import sys
from pathlib import Path

# `-m` puts the working folder on the path. There a user's folder `datasets` looks like the Hugging Face
# package to transformers, and a file `random.py` would be taken for Python's own.
if sys.path and Path(sys.path[0] or ".").resolve() == Path.cwd():
    del sys.path[0]

from p2p_bench.app.main import main

if __name__ == "__main__":
    main()
