"""What happened in a step, in one plain sentence."""


def sentence(step, before, lines):
    return ""
