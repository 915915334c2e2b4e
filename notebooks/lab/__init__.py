"""The parts of the notebooks; importing one makes the rest of the repository importable."""

import sys
from pathlib import Path

# The one place where the path is edited: a notebook's kernel starts in notebooks/.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))
