"""docs/reference.md and docs/command-line.md name everything that is public, with the defaults that are in the code."""

from __future__ import annotations

import argparse
import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
from support.document import section, table

import spark_partition_server as package
from spark_partition_server import cli, errors

DOCS = Path(__file__).resolve().parents[2] / "docs"
REFERENCE = (DOCS / "reference.md").read_text()
COMMANDS = (DOCS / "command-line.md").read_text()


def written(value: Any) -> str:
    """A default as the page writes it."""
    if type(value) is int and value and value % (1 << 20) == 0:
        return f"{value >> 20} MiB"
    return repr(value).replace("'", '"')


@pytest.mark.parametrize("name", package.__all__)
def test_every_public_name_is_in_the_reference(name):
    """Who looks for a name finds it. Provoked: a name of ``__all__`` that the page does not have."""
    assert re.search(rf"\b{name}\b", REFERENCE), f"docs/reference.md says nothing of {name}"


@pytest.mark.parametrize("options", [package.ClientOptions, package.ServerOptions, package.ClusterOptions])
def test_the_options_and_their_defaults_are_those_of_the_code(options):
    """Promise: no option is missing, none has another default. Provoked: the fields against the table's rows."""
    found = {row["option"]: row["default"] for row in table(section(REFERENCE, f"`{options.__name__}`"), "option")}
    defaults = {field.name: field.default for field in dataclasses.fields(options)}
    assert found.keys() == defaults.keys()
    for name, value in defaults.items():
        same = float(found[name]) == value if type(value) is float else found[name] == written(value)
        assert same, f"{name}: {found[name]} is not {value}"


def test_the_tree_of_errors_is_that_of_the_code():
    """Promise: one tree, in the code's words. Provoked: the page's against the one in errors/__init__.py."""
    assert errors.__doc__ is not None
    code = [line.strip() for line in errors.__doc__.splitlines() if "──" in line]
    page = [line.strip() for line in section(REFERENCE, "Errors").splitlines() if "──" in line]
    assert page == code, "copy the tree of errors/__init__.py to docs/reference.md"


def parsers(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    below = [action.choices.values() for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return [parser, *(one for group in below for one in group)]


def test_every_command_and_option_is_on_the_page_of_the_command_line():
    """Promise: the page tells all that ``--help`` does. Provoked: the parser's own commands and options."""
    known = parsers(cli._parser())
    commands = [one.prog.rpartition(" ")[2] for one in known[1:]]
    assert sorted(row["command"].split()[0] for row in table(COMMANDS, "command")) == sorted(commands)
    options = {text for one in known for action in one._actions for text in action.option_strings}
    assert [option for option in sorted(options) if option not in COMMANDS] == []
