"""The notebooks run, and their committed outputs are complete."""

import os
import re
import signal

import psutil
import pytest

from conftest import wait_until
from notebooks import execute

pytestmark = pytest.mark.slow

NOTEBOOKS = sorted(execute.HERE.glob("*.ipynb"))
committed = pytest.mark.xdist_group("committed notebooks")  # one worker reads them
LARGEST = 800_000  # bytes, pictures included: what a slow line loads in some seconds


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def path(request):
    return request.param


@pytest.fixture
def notebook(path):
    import nbformat  # not at the top: most workers run no such test

    return nbformat.read(path, as_version=4)


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_a_notebook_runs_from_top_to_bottom(path):
    done = execute.execute(path, "quick")
    assert [cell.execution_count for cell in code(done)] == list(range(1, len(code(done)) + 1))


@committed
def test_the_committed_outputs_come_from_one_run_without_errors(notebook):
    import nbformat

    nbformat.validate(notebook)
    cells = code(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert "error" not in {output.output_type for output in outputs}
    assert "stderr" not in {output.get("name") for output in outputs}
    assert any("image/png" in output.get("data", {}) for output in outputs)


@committed
def test_each_cell_shows_its_picture_and_no_object_is_printed(notebook):
    for cell in code(notebook):
        shown = [set(output["data"]) for output in cell.outputs if "data" in output]
        pictures = sum("image/png" in kinds for kinds in shown)
        assert pictures == cell.source.count("helpers.show("), cell.id
        assert all(kinds & {"image/png", "text/html"} for kinds in shown), cell.id


@committed
def test_a_notebook_is_small_and_so_are_its_cells(path, notebook):
    assert path.stat().st_size <= LARGEST
    assert max(len(cell.source.splitlines()) for cell in code(notebook)) <= 15


@committed
def test_no_notebook_names_the_machine_that_ran_it(notebook):
    for cell in code(notebook):
        for output in cell.outputs:
            assert not re.search(r"/(home|root|work|tmp|Users)/", output.get("text", ""))


def test_what_a_notebook_has_started_ends_with_its_kernel_however_that_ends():
    from jupyter_client.manager import start_new_kernel

    manager, client = start_new_kernel(cwd=str(execute.HERE))
    try:
        lines = [
            "import lab",
            "from lab import helpers",
            "from clients.system import processes",
            "place = helpers.running.enter_context(processes.temp_dir())",
            "print(helpers.start('02_threaded').process.pid, place)",
        ]
        printed = []
        client.execute_interactive(
            "\n".join(lines),
            timeout=60,
            output_hook=lambda message: printed.append(message["content"].get("text", "")),
        )
        pid, place = "".join(printed).split()
        assert psutil.pid_exists(int(pid))
        assert os.path.isdir(place)
        manager.signal_kernel(signal.SIGKILL)
        wait_until(lambda: not psutil.pid_exists(int(pid)) and not os.path.isdir(place))
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
