"""A command's help, and its numbers: within their limits, or one line says what they must be."""

import argparse

import pytest

from clients.console.argtypes import number, numbers
from conftest import cli


@pytest.mark.parametrize(
    ("read", "text", "value"),
    [
        (number(int, 1, 100), "1", 1),
        (number(int, 1, 100), "100", 100),
        (number(float, 0.5, 60), "0.5", 0.5),
        (number(float, 0, 60), "1e1", 10.0),
        (numbers(int, 1, 100), "5", [5]),
        (numbers(int, 1, 100), "50,1,10,1", [1, 10, 50]),
        (numbers(float, 1, 100), "2.5,1", [1.0, 2.5]),
        (numbers(int, 0, 100, distinct=False), "50,0,10,0", [50, 0, 10, 0]),
    ],
)
def test_what_is_within_the_limits_is_read(read, text, value):
    assert read(text) == value


@pytest.mark.parametrize("text", ["0", "101", "-1", "", "many", "1.5", "9" * 5000, "1,2"])
def test_what_is_no_whole_number_within_the_limits_is_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match=r"^expected a whole number from 1 to 100"):
        number(int, 1, 100)(text)


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "0.4", "60.1", "long"])
def test_what_is_no_number_within_the_limits_is_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match=r"^expected a number from 0.5 to 60, not"):
        number(float, 0.5, 60)(text)


@pytest.mark.parametrize("text", ["", "1,", "1,,2", "1,nan", "1,101", "0,1", "1;2"])
def test_one_wrong_number_of_a_list_is_enough(text):
    words = r"^expected whole numbers from 1 to 100, such as 1,10,50, not '"
    with pytest.raises(argparse.ArgumentTypeError, match=words):
        numbers(int, 1, 100)(text)


def test_argparse_says_it_in_one_line(capsys):
    parser = argparse.ArgumentParser("program", usage="program")
    parser.add_argument("--users", type=numbers(int, 1, 100))
    with pytest.raises(SystemExit, match="2"):
        parser.parse_args(["--users", "1,many\x1b[2J"])
    assert capsys.readouterr().err.splitlines()[-1] == (
        "program: error: argument --users: "
        r"expected whole numbers from 1 to 100, such as 1,10,50, not '1,many\x1b[2J'"
    )


@pytest.mark.parametrize("module", ["clients.crowd", "load_tests.bench"])
def test_the_help_says_how_to_run_the_command(module):
    said = cli(module, "--help").stdout
    assert said.startswith(f"usage: python -m {module} [-h]")
    assert f"\n.venv/bin/python -m {module} " in said
