"""The notebooks run, and their committed outputs are complete."""

import contextlib
import os
import re
import signal

import psutil
import pytest

from conftest import wait_until
from notebooks import execute

# One worker runs them all: it has one kernel, and loads what reads notebooks.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("notebooks")]

NOTEBOOKS = sorted(execute.HERE.glob("*.ipynb"))
LARGEST = 800_000  # bytes, pictures included: what a slow line loads in some seconds
# After this a kernel is as good as a new one: no names, no modules of ours and so no state of them.
EMPTY = """
def empty(shell, modules):
    if "lab.helpers" in modules:
        modules["lab.helpers"].end()
    for name in [*modules]:
        if name.partition(".")[0] in ("lab", "clients", "load_tests"):
            del modules[name]
    python = {name: it for name, it in shell.user_ns.items() if name.startswith("__")}
    shell.reset()
    shell.user_ns.update(python)
empty(get_ipython(), __import__("sys").modules)
"""


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def path(request):
    return request.param


@pytest.fixture
def notebook(path):
    import nbformat  # not at the top: most workers run no such test

    return nbformat.read(path, as_version=4)


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


class OneKernel:
    """Runs notebooks one after the other in one kernel, which is emptied before each of them.

    A kernel of its own takes longer to import what a notebook needs than to run most notebooks.
    """

    def __init__(self):
        self.manager = None

    def end(self):
        from jupyter_core.utils import run_sync

        if self.manager:
            run_sync(self.manager.shutdown_kernel)(now=True)
            self.manager = None

    def run(self, path):
        """Return a notebook, run in quick mode; a kernel in which one has failed is not used again.

        It is run by execute(), which starts the kernel if there is none.
        """
        with contextlib.ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
            patch.setattr("nbclient.NotebookClient", self.client)
            stack.callback(self.end)
            notebook = execute.execute(path, "quick")
            stack.pop_all()
            return notebook

    def client(self, notebook, **options):
        from jupyter_client import AsyncKernelManager
        from nbclient import client

        async def empty(notebook):
            reply = await one.kc.execute_interactive(EMPTY, store_history=False)
            assert reply["content"]["status"] == "ok"

        self.manager = self.manager or AsyncKernelManager(kernel_name="python3")
        one = client.NotebookClient(notebook, self.manager, **options)
        one.on_notebook_start = empty
        one.on_notebook_complete = lambda notebook: one.kc.stop_channels()
        return one


@pytest.fixture(scope="session")
def kernel():
    kernel = OneKernel()
    yield kernel
    kernel.end()


def test_a_notebook_runs_from_top_to_bottom(path, kernel):
    done = kernel.run(path)
    assert [cell.execution_count for cell in code(done)] == list(range(1, len(code(done)) + 1))


def test_the_committed_outputs_come_from_one_run_without_errors(notebook):
    import nbformat

    nbformat.validate(notebook)
    cells = code(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert "error" not in {output.output_type for output in outputs}
    assert "stderr" not in {output.get("name") for output in outputs}
    assert any("image/png" in output.get("data", {}) for output in outputs)


def test_each_cell_shows_its_picture_and_no_object_is_printed(notebook):
    for cell in code(notebook):
        shown = [set(output["data"]) for output in cell.outputs if "data" in output]
        pictures = sum("image/png" in kinds for kinds in shown)
        assert pictures == cell.source.count("helpers.show("), cell.id
        assert all(kinds & {"image/png", "text/html"} for kinds in shown), cell.id


def test_a_notebook_is_small_and_so_are_its_cells(path, notebook):
    assert path.stat().st_size <= LARGEST
    assert max(len(cell.source.splitlines()) for cell in code(notebook)) <= 15


def test_no_notebook_names_the_machine_that_ran_it(notebook):
    for cell in code(notebook):
        for output in cell.outputs:
            assert not re.search(r"/(home|root|work|tmp|Users)/", output.get("text", ""))


def test_each_notebook_finds_a_kernel_without_names_modules_and_servers(kernel, tmp_path):
    cells = [
        "from lab import helpers, tcp\ntcp.mine, server = 1, helpers.start('02_threaded')\n"
        "print(server.process.pid)",
        "print('helpers' in vars(), 'server' in vars())\nfrom lab import tcp\n"
        "print(hasattr(tcp, 'mine'))",
    ]
    [pid], found = (printed(kernel.run(written(tmp_path, cell))) for cell in cells)
    assert found == ["False", "False", "False"]
    assert not psutil.pid_exists(int(pid))


def written(folder, cell):
    """Return the path of a new notebook with one cell."""
    from nbformat import v4, write

    write(v4.new_notebook(cells=[v4.new_code_cell(cell)]), folder / "one.ipynb")
    return folder / "one.ipynb"


def printed(notebook):
    """Return the words that the cells of a notebook have printed."""
    return " ".join(output.text for cell in code(notebook) for output in cell.outputs).split()


def test_what_a_notebook_has_started_ends_with_its_kernel_however_that_ends(kernel, tmp_path):
    lines = [
        "import lab",
        "from lab import helpers",
        "from clients.system import processes",
        "place = helpers.running.enter_context(processes.temp_dir())",
        "print(helpers.start('02_threaded').process.pid, place)",
    ]
    pid, place = printed(kernel.run(written(tmp_path, "\n".join(lines))))
    assert psutil.pid_exists(int(pid))
    assert os.path.isdir(place)
    os.kill(kernel.manager.provisioner.pid, signal.SIGKILL)
    wait_until(lambda: not psutil.pid_exists(int(pid)) and not os.path.isdir(place))
    kernel.end()
