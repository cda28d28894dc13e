"""The documents tell the truth where they repeat the code, and cite what exists.

Checked are exit statuses, parameters, magic attributes and commands in the reference,
every place that a docstring cites, and every link.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from cvmfsexec.cli import exit_codes, main

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src/cvmfsexec"
REFERENCE = ROOT / "docs/reference"


def test_exit_statuses_in_the_reference_are_those_of_the_code() -> None:
    used = {
        value
        for name, value in vars(exit_codes).items()
        if name.isupper() and isinstance(value, int)
    }
    text = (REFERENCE / "exit-status.md").read_text()
    documented = {int(row) for row in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)}
    assert documented == used


def test_parameters_in_the_reference_are_those_that_the_code_reads() -> None:
    read: set[str] = set()
    for path in SOURCE.rglob("*.py"):
        read |= set(re.findall(r'"((?:CVMFS|X509)_[A-Z0-9_]+)"', path.read_text()))
    text = (REFERENCE / "parameters.md").read_text()
    honoured = text.partition("## Parameters that have no effect")[0]
    documented = set(re.findall(r"`((?:CVMFS|X509)_[A-Z0-9_]+)`", honoured))
    assert read - documented == set()
    assert documented - read == set()


def test_magic_attributes_in_the_reference_are_those_of_the_code() -> None:
    answered: set[str] = set()
    for name in ("client/mount_attributes.py", "vfs/extended_attributes.py"):
        tree = ast.parse((SOURCE / name).read_text())
        for table in (node for node in ast.walk(tree) if isinstance(node, ast.Dict)):
            for key in table.keys:
                value = getattr(key, "value", None)
                if isinstance(value, bytes):
                    answered.add(value.decode())
                elif isinstance(value, str):
                    answered.add(f"user.{value}")
    text = (REFERENCE / "magic-attributes.md").read_text()
    rows = "\n".join(line for line in text.splitlines() if line.startswith("| `"))
    assert set(re.findall(r"`((?:user|xfsroot)\.\w+)`", rows)) == answered


def test_commands_of_the_tool_are_in_its_reference() -> None:
    text = (REFERENCE / "cvmfs.md").read_text()
    assert set(re.findall(r"^## `cvmfs (\w+)", text, re.MULTILINE)) == set(
        main.COMMANDS
    )


_CITATION = re.compile(
    r"\b(docs/[\w/-]+\.md|docs/adr/\d{4})"  # a document, or a record by its number
    r'((?:(?:,|;| and| to|, parameters)?\s+"[^"]+")*)'
)


def sources() -> Iterator[Path]:
    for top in ("src", "tests", "fuzz", "bench"):
        yield from (ROOT / top).rglob("*.py")


def documents() -> Iterator[Path]:
    yield from ROOT.glob("*.md")
    yield from (ROOT / "docs").rglob("*.md")


def citations(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield the documents that a file cites, each with the headings quoted after it."""
    lines = (line.strip().removeprefix("#") for line in path.read_text().splitlines())
    for document, quoted in _CITATION.findall(" ".join(lines)):
        yield document, re.findall(r'"([^"]+)"', " ".join(quoted.split()))


def headings(document: Path) -> set[str]:
    found = re.findall(r"^#+ (.*)$", document.read_text(), re.MULTILINE)
    return {heading.replace("`", "") for heading in found}


def anchor(heading: str) -> str:
    """Return how a heading is linked to, by the rule of the usual forges."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def test_cited_documents_and_sections_exist() -> None:
    wrong = []
    for path in sources():
        for name, sections in citations(path):
            pattern = name if name.endswith(".md") else f"{name}-*.md"
            found = next(ROOT.glob(pattern), None)
            if found is None:
                wrong.append(f"{path}: {name} does not exist")
            else:
                missing = set(sections) - headings(found)
                wrong += [f"{path}: {name} has no {one!r}" for one in missing]
    assert wrong == []


def test_links_between_documents_lead_somewhere() -> None:
    wrong = []
    for path in documents():
        for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
            name, _, fragment = target.partition("#")
            linked = (path.parent / name) if name else path
            if "://" in target:
                continue
            if not linked.exists() or (
                fragment and fragment not in map(anchor, headings(linked))
            ):
                wrong.append(f"{path} links to {target}")
    assert wrong == []
