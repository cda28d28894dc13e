"""The plain evaluator never says anything else than a shell."""

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cvmfsexec.configuration.assignments import assigned_names
from cvmfsexec.configuration.files import ConfigurationFile
from cvmfsexec.configuration.plain import evaluate_plainly
from cvmfsexec.configuration.shell import evaluate_in_shell
from cvmfsexec.errors import ConfigurationError

ENVIRONMENT = {
    "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
    "HOME": "/home/user",
    "CVMFS_FQRN": "software.example.org",
    "CVMFS_SET": "yes",
    "CVMFS_BLANKS": "  a \t b  ",
    "CVMFS_EMPTY": "",
}

OTHER = """\
CVMFS_COMMON=from-common
if [ "$CVMFS_SET" = "yes" ]; then
  CVMFS_A=changed
  return
fi
CVMFS_A=never
"""

PLAIN = {
    "nothing": "",
    "comments": "# Größe = 1\n\n   # CVMFS_A=1 \\\n\t\n",
    "values": "CVMFS_A=1\nCVMFS_B=/x/y:z\n  CVMFS_C=a=b  # why\n\tCVMFS_D=\n",
    "quotes": "CVMFS_A='a b;c|$d'\nCVMFS_B=\"x;y | z\"\nCVMFS_C=a'b'\"c\"d\n",
    "references": 'CVMFS_A=1\nCVMFS_B=$CVMFS_A/${CVMFS_A}\nCVMFS_C="$CVMFS_B;x"\n',
    "from outside": 'CVMFS_A="$CVMFS_SET"\nCVMFS_B=$HOME/cache\nCVMFS_C=$CVMFS_NO\n',
    "defaults": 'CVMFS_A=${CVMFS_NO:-d}\nCVMFS_B="${CVMFS_EMPTY:-http://p:1;DIRECT}"\n',
    "blanks collapse": "CVMFS_A=\"  a   b \"\nCVMFS_B=$CVMFS_A'|'\n",
    "inherited blanks": 'CVMFS_A=$CVMFS_BLANKS\nCVMFS_B="$CVMFS_BLANKS"\n',
    "keywords": "export CVMFS_A=1\nreadonly CVMFS_B='x y'\n",
    "last wins": "CVMFS_A=1\nCVMFS_A=2\n",
    "if": 'if [ "$CVMFS_SET" = "yes" ]; then\n  CVMFS_A=1\nelse\n  CVMFS_A=2\nfi\n',
    "not taken": 'if [ -z "$CVMFS_SET" ]; then\n  CVMFS_SET=1\n  CVMFS_X=1\nfi\n',
    "elif": (
        "if [ $CVMFS_SET != yes ] ; then\nCVMFS_A=1\n"
        "elif [ -n '' ] || [ x = x ]; then # here\nCVMFS_A=2\n"
        "elif [ a = a ]; then\nCVMFS_A=3\nelse\nCVMFS_A=4\nfi\n"
    ),
    "joints": (
        'if [ a = b ] && [ a = a ] || [ "$CVMFS_SET" = yes ]; then\nCVMFS_A=1\nfi\n'
        "if [ a = a ] || [ a = a ] && [ a = b ]; then\nCVMFS_B=1\nfi\n"
    ),
    "nested": (
        'if [ -n "$CVMFS_SET" ]; then\n  if [ -z "$CVMFS_SET" ]; then\n    CVMFS_A=1\n'
        "  else\n    CVMFS_A=2\n  fi\n  CVMFS_B=1\nfi\nCVMFS_C=1\n"
    ),
    "source": "CVMFS_A=1\n. ./other.conf\nCVMFS_B=$CVMFS_COMMON\n",
    "return": "CVMFS_A=1\nif [ a = a ]; then\n  return\nfi\nCVMFS_A=2\nCVMFS_B=2\n",
}

NOT_PLAIN = {
    "command": "true\n",
    "substitution": 'CVMFS_A="$(hostname)"\n',
    "arithmetic": "CVMFS_A=$((1 + 1))\n",
    "backquotes": "CVMFS_A=`hostname`\n",
    "other names": "IFS=:\nCVMFS_A=a:b\n",
    "special variable": "CVMFS_A=$RANDOM\n",
    "positional": "CVMFS_A=$1\n",
    "longer name": "CVMFS_A=$HOMEPAGE\n",
    "backslash": "CVMFS_A=a\\ b\n",
    "quoted backslash": 'CVMFS_A="a\\\\b"\n',
    "pattern": "CVMFS_A='*'\n",
    "option of echo": "CVMFS_A=-n\n",
    "tilde": "CVMFS_A=~/x\n",
    "two commands": "CVMFS_A=1; CVMFS_B=2\n",
    "assignment for a command": "CVMFS_A=1 true\n",
    "split": "CVMFS_A=$CVMFS_SET b\n",
    "umlaut": "CVMFS_A=Größe\n",
    "carriage return": "CVMFS_A=1\r\n",
    "open quote at the end": "CVMFS_A='",
    "open quote": "CVMFS_A='1\n2'\n",
    "readonly twice": "readonly CVMFS_A=1\nCVMFS_A=2\n",
    "no fi": "if [ a = a ]; then\nCVMFS_A=1\n",
    "stray fi": "CVMFS_A=1\nfi\n",
    "stray else": "CVMFS_A=1\nelse\nCVMFS_A=2\nfi\n",
    "else twice": "if [ a = b ]; then\nCVMFS_A=1\nelse\nCVMFS_A=2\nelse\nfi\n",
    "empty branch": "if [ a = b ]; then\n# nothing\nfi\nCVMFS_A=1\n",
    "no then": "if [ a = b ]\nCVMFS_A=1\nfi\n",
    "equals of bash": "if [ a == a ]; then\nCVMFS_A=1\nfi\n",
    "operand that may split": "if [ $CVMFS_EMPTY = a ]; then\nCVMFS_A=1\nfi\n",
    "operand like an operator": 'if [ "-n" = a ]; then\nCVMFS_A=1\nfi\n',
    "unclear in a skipped branch": "if [ a = b ]; then\nCVMFS_A=$(date)\nfi\n",
    "missing source": ". ./absent.conf\nCVMFS_A=1\n",
    "source from PATH": ". other.conf\nCVMFS_A=1\n",
    "endless source": ". ./loop.conf\n",
}

SHELLS = [path for name in ("sh", "bash", "dash") if (path := shutil.which(name))]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("plain")
    (directory / "other.conf").write_text(OTHER)
    (directory / "loop.conf").write_text(". ./loop.conf\n")
    shells = directory / "shells"
    shells.mkdir()
    for number, path in enumerate(SHELLS):  # bash is a POSIX shell by the name of sh
        (shells / f"{number}").mkdir()
        (shells / f"{number}" / "sh").symlink_to(path)
    return directory


def shell_answers(text: str, directory: Path) -> list[dict[str, str] | None]:
    """Return what each shell of this machine says; ``None`` for a failure."""
    path = directory / "file.conf"
    path.write_bytes(os.fsencode(text))
    file = ConfigurationFile(str(path), str(path))
    answers: list[dict[str, str] | None] = []
    for shell in sorted((directory / "shells").glob("*/sh")):
        try:
            names = assigned_names(text)
            answer = evaluate_in_shell(file, names, ENVIRONMENT, shell=str(shell))
        except ConfigurationError:
            answers.append(None)
        else:
            answers.append(answer)
    return answers


def assert_agreement(text: str, directory: Path) -> None:
    plain = evaluate_plainly(text, str(directory), ENVIRONMENT)
    if plain:  # without names there is nothing to ask a shell for
        for answer in shell_answers(text, directory):
            assert answer == plain, text


@pytest.mark.parametrize("text", PLAIN.values(), ids=PLAIN)
def test_simple_files_need_no_shell(text: str, directory: Path) -> None:
    assert evaluate_plainly(text, str(directory), ENVIRONMENT) is not None
    assert_agreement(text, directory)


@pytest.mark.parametrize("text", NOT_PLAIN.values(), ids=NOT_PLAIN)
def test_what_shells_may_see_differently_is_left_to_the_shell(
    text: str, directory: Path
) -> None:
    assert evaluate_plainly(text, str(directory), ENVIRONMENT) is None


NAMES = st.sampled_from(
    ["CVMFS_A", "CVMFS_B", "CVMFS_SET", "CVMFS_EMPTY", "CVMFS_BLANKS", "CVMFS_NO"]
)
REFERENCES = st.one_of(
    NAMES.map("${}".format),
    NAMES.map("${{{}}}".format),
    st.tuples(NAMES, st.sampled_from(["", "d", "a/b", "x;y", "a b", "*", "-n"])).map(
        lambda pair: f"${{{pair[0]}:-{pair[1]}}}"
    ),
    st.just("$HOME"),
)
BARE = st.text("abcXYZ019_./:@%+,=-", max_size=6)
IN_QUOTES = st.text("ab1 \t;|&()<>{}*?[]~!#%^=-.$/", max_size=8)
WORDS = st.lists(
    st.one_of(
        BARE,
        REFERENCES,
        IN_QUOTES.map("'{}'".format),
        st.lists(st.one_of(IN_QUOTES, REFERENCES), max_size=3).map(
            lambda parts: '"' + "".join(parts) + '"'
        ),
    ),
    max_size=3,
).map("".join)
TESTS = st.one_of(
    st.tuples(WORDS, st.sampled_from(["=", "!="]), WORDS).map(
        lambda t: f"[ {t[0]} {t[1]} {t[2]} ]"
    ),
    st.tuples(st.sampled_from(["-z", "-n"]), WORDS).map(lambda t: f"[ {t[0]} {t[1]} ]"),
)
CONDITIONS = st.lists(TESTS, min_size=1, max_size=3).flatmap(
    lambda tests: st.sampled_from([" && ", " || "]).map(lambda joint: joint.join(tests))
)
SIMPLE = st.one_of(
    st.tuples(
        st.sampled_from(["", "", "", "export ", "readonly "]),
        NAMES,
        WORDS,
        st.sampled_from(["", "", " # c", "  "]),
    ).map(lambda t: f"{t[0]}{t[1]}={t[2]}{t[3]}"),
    st.sampled_from(["", "# x = y \\", ". ./other.conf", "return"]),
)


def conditionals(blocks: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.tuples(CONDITIONS, blocks, CONDITIONS, blocks, blocks).map(
        lambda t: (
            f"if {t[0]}; then\n{t[1]}\nelif {t[2]} ; then\n{t[3]}\nelse\n{t[4]}\nfi"
        )
    )


FILES = st.recursive(
    SIMPLE,
    lambda blocks: st.one_of(
        st.lists(blocks, min_size=1, max_size=4).map("\n".join), conditionals(blocks)
    ),
    max_leaves=8,
)


@given(text=FILES)
def test_generated_files_mean_the_same_to_every_shell(
    text: str, directory: Path
) -> None:
    assert_agreement(text + "\n", directory)


# Harmless to run, whatever comes out: no redirections, no program but "[".
SOUP = st.lists(
    st.sampled_from(
        [
            *(
                "CVMFS_A=",
                "CVMFS_B=",
                "$CVMFS_SET",
                "${CVMFS_NO:-",
                "$CVMFS_A",
                "$",
                "}",
            ),
            *(
                "'",
                '"',
                "\\",
                "#",
                ";",
                "&&",
                "||",
                "[",
                "]",
                "=",
                "!=",
                "-z",
                "-n",
                "!",
            ),
            *("if", "then", "elif", "else", "fi", "return", "export", "readonly"),
            *("if [ a = a ]; then\n", "\nfi\n", ". ./other.conf", "a", "b c", "*", "~"),
            *(" ", " ", " ", "\n", "\n", "\n", "\t"),
        ]
    ),
    max_size=20,
).map("".join)


@settings(max_examples=100)
@given(text=SOUP)
def test_soups_of_shell_words_mean_the_same_to_every_shell(
    text: str, directory: Path
) -> None:
    assert_agreement(text, directory)


@given(text=st.text())
def test_any_text_is_evaluated_or_left_to_the_shell(text: str, directory: Path) -> None:
    evaluate_plainly(text, str(directory), ENVIRONMENT)
