"""What the programs of this folder print and write: one place for each.

with held(folder):                      # nobody else writes into it meanwhile
    Screen().print(text_of_a_stranger)
    save(folder / "results.json", text)
"""

import contextlib
import os
import sys
import tempfile

from rich.console import Console

from clients.console.printable import printable

ASCII = str.maketrans({"≥": ">=", "µ": "u"})
NARROW = 80  # columns that a table needs: a terminal with less breaks its lines
ROOM = 16 * 2**20  # bytes: more than one comparison writes


class CannotWrite(RuntimeError):
    """Results have no place: what is wrong with the one that was named."""


def lines(text):
    """Return the text of a stranger with nothing that a terminal obeys but the end of a line."""
    return "\n".join(map(printable, text.split("\n")))


class Screen(Console):
    """The terminal. A text is shown as it is, whoever wrote it: nothing in it is a command.

    A letter that the terminal does not have is shown as "?". If who reads (| head, | tee) is gone
    nobody is told any more, and the program goes on: what it measures is written.
    """

    def __init__(self):
        if sys.stdout:
            sys.stdout.reconfigure(errors="replace")
        super().__init__(markup=False, emoji=False, highlight=False)
        if self.width < NARROW:
            self.width = NARROW

    def render_str(self, text, **options):
        if not self.encoding.startswith("utf"):
            text = text.translate(ASCII)
        return super().render_str(lines(text), **options)

    def on_broken_pipe(self):
        with contextlib.suppress(SystemExit):
            super().on_broken_pipe()


@contextlib.contextmanager
def held(folder):
    """Make a folder for results, and keep it for this process alone. Raises CannotWrite."""
    import fcntl  # not at the top: Windows does not have it

    make_sure(folder)
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # it ends with us, however we end
        yield
    except BlockingIOError as error:
        text = f"another comparison is writing to {folder}: name another folder with --out"
        raise CannotWrite(text) from error
    finally:
        os.close(handle)


def make_sure(folder):
    """Make a folder (None: no folder), and be sure that it has room, and the temporary one.

    Raises CannotWrite.
    """
    for place in (folder, None):
        try:
            if place:
                place.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=place) as file:
                os.posix_fallocate(file.fileno(), 0, ROOM)
        except FileExistsError as error:
            raise CannotWrite(f"cannot write to {place}: it is no folder") from error
        except OSError as error:
            where = place or "the temporary folder (TMPDIR)"
            raise CannotWrite(f"cannot write to {where}: {error.strerror}") from error


def make_sure_of_file(path):
    """Be sure that a file can be written, or path is None. Raises CannotWrite."""
    if path and path.is_dir():
        raise CannotWrite(f"cannot write to {path}: it is a folder")
    if path and (path.is_file() or not path.exists()):  # and not /dev/stdout
        make_sure(path.resolve().parent)


def save(path, content):
    """Write a file as a whole, or leave what was there. content: str or bytes. Raises OSError."""
    path = path.resolve()  # a link stays
    data = content.encode() if isinstance(content, str) else content
    if path.exists() and not path.is_file():  # /dev/stdout
        path.write_bytes(data)
        return
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_bytes(data)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def ended(failed, path, text):
    """Save a text where --json says (None: nowhere); return the words with which to exit, or None.

    failed: what else has gone wrong, None if nothing. What was measured is kept all the same.
    """
    try:
        if path:
            save(path, text)
    except OSError as error:
        failed = "\n".join(filter(None, [failed, f"cannot write to {path}: {error.strerror}"]))
    return failed and lines(failed)
