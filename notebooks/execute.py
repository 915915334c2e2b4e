"""Run the notebooks and write their outputs into them.

.venv/bin/python -m notebooks.execute                         all, in full mode
.venv/bin/python -m notebooks.execute 2_tcp --mode default    one of them, as Run All does
"""

import sys
import tempfile

from clients.console.argtypes import command_parser
from clients.system.processes import ROOT, marked_environment, require_linux, temp_dir

HERE = ROOT / "notebooks"
MODES = ("quick", "default", "full")  # lab/helpers.py, choose()
# jsonschema would import it, which takes a second, for a format that no notebook has.
sys.modules.setdefault("rfc3987_syntax", None)


def execute(path, mode):
    """Run a notebook in a kernel of its own and return it with its outputs (nbformat 4).

    mode: one of MODES. Raises CellExecutionError with the failing cell's traceback.
    """
    import nbformat  # not at the top: it takes long
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    NotebookClient(
        notebook,
        timeout=1200,
        kernel_name="python3",
        resources={"metadata": {"path": str(HERE)}},
        record_timing=False,
        coalesce_streams=True,  # what one cell prints is one text
    ).execute(
        env=marked_environment() | {"NOTEBOOKS": mode}
    )  # Jupyter starts it, the reaper ends it
    return notebook


def main():
    require_linux()
    parser = command_parser(__doc__)
    names = sorted(path.stem for path in HERE.glob("*.ipynb"))
    parser.add_argument("notebooks", nargs="*", metavar="NAME", help=f"default: {', '.join(names)}")
    parser.add_argument("--mode", choices=MODES, default="full")
    args = parser.parse_args()
    if unknown := set(args.notebooks) - set(names):
        parser.error(f"no notebook {', '.join(unknown)}: choose from {', '.join(names)}")
    import nbformat  # not at the top: it takes long

    with temp_dir() as place:
        tempfile.tempdir = str(place)  # for Jupyter's connection file, which would outlive a kill
        for name in args.notebooks or names:
            path = HERE / f"{name}.ipynb"
            print(f"running {path.name} ...", flush=True)
            nbformat.write(execute(path, args.mode), path)


if __name__ == "__main__":
    main()
