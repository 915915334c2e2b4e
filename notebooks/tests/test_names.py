"""All code of the notebooks fits what it uses, also that of the exercises and the other modes.

It is read, not run: names, attributes of modules and arguments exist, and so do the experiments.
"""

import ast
import builtins
import inspect
import json
import re
import textwrap

import pytest

from notebooks import execute

pytestmark = pytest.mark.xdist_group("labs")  # it loads pandas, and what draws

NOTEBOOKS = sorted(execute.HERE.glob("*.ipynb"))
BLOCK = re.compile(r"^ *```python\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
SHELL = re.compile(r"^!.*", re.MULTILINE)


def code_of(path):
    """Return the code of a notebook as trees: of its cells and blocks, and of the spans of text."""
    cells = [
        ("".join(one["source"]), one["cell_type"]) for one in json.loads(path.read_text())["cells"]
    ]
    texts = [text for text, kind in cells if kind == "markdown"]
    programs = [text for text, kind in cells if kind == "code"]
    programs += [textwrap.dedent(block) for text in texts for block in BLOCK.findall(text)]
    programs = [ast.parse(SHELL.sub("pass", text)) for text in programs]
    return programs, [
        *filter(None, (parsed(span) for text in texts for span in SPAN.findall(text)))
    ]


def parsed(span):
    """Return the tree of a span that calls something with arguments, None of another one."""
    try:
        tree = ast.parse(span)
    except SyntaxError:
        return None
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return tree if any(call.args or call.keywords for call in calls) else None


def defined(programs):
    """Return {name: what a notebook imports by it}, and the names that it gives to others."""
    imported, others = {}, set()
    for node in (node for tree in programs for node in ast.walk(tree)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            exec(compile(ast.Module([node], []), "<import>", "exec"), imported)
        elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            others.add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            others.add(node.name)
        elif isinstance(node, ast.arg):
            others.add(node.arg)
        elif isinstance(node, ast.ExceptHandler) and node.name:
            others.add(node.name)
    return {name: it for name, it in imported.items() if name not in others}, others


def meant(node, imported):
    """Return what an expression names, if that is imported, or a part of it; else None.

    Raises AttributeError if there is no such part.
    """
    if isinstance(node, ast.Name):
        return imported.get(node.id)
    if isinstance(node, ast.Attribute):
        whole = meant(node.value, imported)
        if inspect.ismodule(whole) or inspect.isclass(whole):
            return getattr(whole, node.attr)
    return None


def fitting(call, function):
    """Raise TypeError if a function does not take the arguments of a call."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # it is no function, or one in C that has none
        return
    known = [one for one in call.args if not isinstance(one, ast.Starred)]
    named = {one.arg: None for one in call.keywords if one.arg}
    all_known = len(known) + len(named) == len(call.args) + len(call.keywords)
    (signature.bind if all_known else signature.bind_partial)(*known, **named)


def experiment(call, function):
    """Raise AttributeError or TypeError if a call names an experiment that does not fit it."""
    from lab import experiments, forgetting, packet_loss, pressure, pressure_run, queues, tcp

    if function not in (tcp.run, tcp.compare, pressure.run):
        return
    if not isinstance(call.args[0], ast.Constant):
        return
    name, network = call.args[0].value, pressure_run if function is pressure.run else experiments
    homes = [network] if network is pressure_run else [queues, packet_loss, forgetting, experiments]
    found = next((vars(home)[name] for home in homes if name in vars(home)), None)
    if not found:
        raise AttributeError(f"no experiment {name}")
    if function is tcp.run:
        fitting(ast.Call(call.func, [], call.keywords), found)


def problems(tree, imported, names=None):
    """Yield what is wrong with the code of a tree. names: those that it may use, None: any."""
    for node in ast.walk(tree):
        try:
            if isinstance(node, ast.Name) and names and node.id not in names:
                raise NameError(node.id)
            if isinstance(node, ast.Attribute):
                meant(node, imported)
            if isinstance(node, ast.Call) and (function := meant(node.func, imported)):
                fitting(node, function)
                experiment(node, function)
        except (NameError, AttributeError, TypeError) as error:
            yield f"{ast.unparse(node)}: {error}"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_code_in_cells_and_texts_fits_what_it_uses(path):
    programs, spans = code_of(path)
    imported, others = defined(programs)
    names = {*imported, *others, *dir(builtins)}
    found = [one for tree in programs for one in problems(tree, imported, names)]
    found += [one for tree in spans for one in problems(tree, imported)]
    assert found == []


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("nobody", "nobody"),
        ("load.gone", "no attribute 'gone'"),
        ("load.bench('03_epoll')", "missing a required .* 'connections'"),
        ("load.compare(*names, 3, **more)", ""),
        ("load.stalled(1, 2, 3, evry=4)", "unexpected keyword argument 'evry'"),
        ("load.bench(*names, **more)", ""),
        ("run('gone')", "no experiment gone"),
        ("run('conversation', closr='client')", "unexpected keyword argument 'closr'"),
        ("run('conversation', closer='client')", ""),
    ],
)
def test_what_does_not_fit_is_seen(code, problem):
    imported, _ = defined([ast.parse("from lab import load\nfrom lab.tcp import run")])
    names = {*imported, *dir(builtins), "names", "more"}
    found = "; ".join(problems(ast.parse(code), imported, names))
    assert re.search(problem, found) if problem else not found
