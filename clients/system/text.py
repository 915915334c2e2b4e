"""What others have written, made fit for our screen."""


def printable(text):
    """Return text that no terminal takes for a command: a dot for what cannot be printed."""
    return "".join(char if char.isprintable() else "·" for char in text)
