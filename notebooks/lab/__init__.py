"""The parts behind the notebooks; whoever imports one finds the rest of the repository as well."""

import sys
from pathlib import Path

# The one place where the path is edited: a notebook's kernel starts in notebooks/.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))
