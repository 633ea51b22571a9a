"""Every command that a page shows is run by some test, and the tables that say so name no other."""

import importlib
from collections import Counter
from pathlib import Path

import pytest

from pages.commands import command, commands
from pages.told import ON_A_NODE, ON_THE_API_SERVER, ON_THIS_MACHINE, PAGES

ROOT = Path(__file__).parents[2]


def named(page):
    """Return the commands of *page* that each table names."""
    tables = (ON_THE_API_SERVER, ON_THIS_MACHINE, ON_A_NODE)
    return [{command(page, start) for start in table.get(page, ())} for table in tables]


@pytest.mark.parametrize("page", PAGES)
def test_every_command_is_run_by_one_kind_of_test(page):
    """What is in no table would not be tried by anybody."""
    tried = Counter(text for found in named(page) for text in found)
    assert set(commands(page)) == tried.keys()
    assert {1} == set(tried.values())


@pytest.mark.parametrize("told", sorted({test for tests in ON_A_NODE.values() for test in tests.values()}))
def test_what_needs_a_node_is_done_by_a_test_there(told):
    """A test of that name."""
    file, _, name = told.partition("::")
    source = (ROOT / file).read_text()
    assert f"\ndef {name}(" in source
    assert "pytest.mark.node" in source


def test_every_page_with_a_table_is_looked_at():
    """None is named in vain."""
    assert set(PAGES) >= ON_THE_API_SERVER.keys() | ON_THIS_MACHINE.keys() | ON_A_NODE.keys()


def test_commands_are_read_as_a_shell_reads_them(tmp_path, monkeypatch):
    """Lines that go on are one, comments are none; other blocks are no commands."""
    page = "```sh\na \\\n  --b c    # why\n\n# all of it\nd '{#}' && e\n```\n\n```yaml\nf: g\n```\n"
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "page.md").write_text(page)
    monkeypatch.setattr(importlib.import_module("pages.commands"), "ROOT", tmp_path)
    assert ["a --b c", "d '{#}' && e"] == commands("page.md")
    assert "a --b c" == command("page.md", "a ")
    with pytest.raises(AssertionError, match="0 commands begin with 'z'"):
        command("page.md", "z")
