"""The terminal, and the files that the commands of this folder write."""

import contextlib
import os
import tempfile

from rich.console import Console

from clients.console.printable import printable, replace_unencodable

ASCII = str.maketrans({"≥": ">=", "µ": "u"})
NARROW = 80  # columns that a table needs: a terminal with less breaks its lines
ROOM = 16 * 2**20  # bytes: more than one comparison writes


class CannotWrite(RuntimeError):
    pass


def lines(text):
    """Return an untrusted text with no control characters but the ends of its lines."""
    return "\n".join(map(printable, text.split("\n")))


class Screen(Console):
    """The terminal. Untrusted text is shown as it is: nothing in it is a command.

    After a broken pipe (| head) nothing more is printed: the program still writes what it measures.
    """

    def __init__(self):
        replace_unencodable()
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
def locked(folder):
    """Make a folder for results, and lock it for this process. Raises CannotWrite."""
    import fcntl  # not at the top: Windows does not have it

    ensure_writable(folder)
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the lock ends with this process
        yield
    except BlockingIOError as error:
        text = f"another comparison is writing to {folder}: name another folder with --out"
        raise CannotWrite(text) from error
    finally:
        os.close(handle)


def ensure_writable(folder):
    """Make a folder (None: no folder); raise CannotWrite if it or the temporary one has no room."""
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


def save(path, content):
    """Write a file as a whole, or leave what was there. content: str or bytes. Raises OSError."""
    path = path.resolve()  # a link stays
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
