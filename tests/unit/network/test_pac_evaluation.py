"""Proxy configuration files, run by the real engines in their own processes."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from importlib.machinery import PathFinder
from pathlib import Path

import pytest

from cvmfsexec.network import pac_evaluation
from cvmfsexec.network.pac_engine import ENGINES
from cvmfsexec.network.pac_evaluation import PacFault, evaluate, find_engine, host_of
from tests.support.sessions import wait_until

URL = "http://s1.example.org:8000/cvmfs/repo.example.org/.cvmfspublished"
ADDRESS = "10.20.30.40"
TEN_THOUSAND_LINES = "".join(
    f"  if (dnsDomainIs(host, '.site{n}.example')) return 'PROXY squid{n}:3128';\n"
    for n in range(10_000)
)

Evaluate = Callable[..., list[str]]


@pytest.fixture(params=ENGINES)
def run(request: pytest.FixtureRequest) -> Evaluate:
    """Return ``evaluate`` with one of the engines."""
    engine = str(request.param)
    if PathFinder.find_spec(engine) is None:
        pytest.skip(f"{engine} is not installed")

    def evaluate_here(script: str | bytes, *urls: str) -> list[str]:
        raw = script if isinstance(script, bytes) else script.encode()
        return evaluate(raw, urls or (URL,), ADDRESS, environment={}, engine=engine)

    return evaluate_here


def function(body: str) -> str:
    return f"function FindProxyForURL(url, host) {{\n{body}\n}}\n"


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        ("return 'PROXY squid:3128';", "PROXY squid:3128"),
        ("return 'PROXY a:1; PROXY b:2; DIRECT';", "PROXY a:1; PROXY b:2; DIRECT"),
        ("return 'PROXY a:1;\\n  DIRECT';", "PROXY a:1; DIRECT"),
        ("return '';", ""),
        ("return 'SOCKS s:1';", "SOCKS s:1"),
        ("return url;", URL),
        ("return host;", "s1.example.org"),
        ("return 'PROXY ' + myIpAddress() + ':1';", f"PROXY {ADDRESS}:1"),
        ("return isInNet(myIpAddress(), '10.20.0.0', '255.255.0.0') ? 'in' : 'out';",
         "in"),
        ("return isInNet(myIpAddress(), '10.21.0.0', '255.255.0.0') ? 'in' : 'out';",
         "out"),
        ("return isInNet('localhost', '127.0.0.0', '255.0.0.0') ? 'in' : 'out';", "in"),
        ("return isInNet('nosuch.invalid', '0.0.0.0', '0.0.0.0') ? 'in' : 'out';",
         "out"),
        ("return dnsResolve('localhost');", "127.0.0.1"),
        ("return isResolvable('nosuch.invalid') ? 'yes' : 'no';", "no"),
        ("return shExpMatch(host, '*.example.org') ? 'yes' : 'no';", "yes"),
        ("return shExpMatch(host, 's?.example.org') ? 'yes' : 'no';", "yes"),
        ("return shExpMatch(host, 'example.org') ? 'yes' : 'no';", "no"),
        ("return shExpMatch('sXexample.org', 's.example.org') ? 'yes' : 'no';", "no"),
        ("return shExpMatch(url, '*/cvmfs/*') ? 'yes' : 'no';", "yes"),
        ("return dnsDomainIs(host, '.example.org') ? 'yes' : 'no';", "yes"),
        ("return dnsDomainIs(host, '.example.com') ? 'yes' : 'no';", "no"),
        ("return isPlainHostName(host) ? 'yes' : 'no';", "no"),
        ("return isPlainHostName('wpad') ? 'yes' : 'no';", "yes"),
        ("return localHostOrDomainIs('s1', 's1.example.org') ? 'yes' : 'no';", "yes"),
        ("return String(dnsDomainLevels(host));", "2"),
        ("return weekdayRange('SUN', 'SAT') ? 'yes' : 'no';", "yes"),
        ("return timeRange(0, 24) ? 'yes' : 'no';", "yes"),
        ("return dateRange('JAN', 'DEC') ? 'yes' : 'no';", "yes"),
        ("return dateRange(1999) ? 'yes' : 'no';", "no"),
        ("return /^s[0-9]/.test(host) ? 'yes' : 'no';", "yes"),
        ("let a = [1, 2].map(n => `${n}`); return a.join();", "1,2"),
        ("alert('noise'); return 'DIRECT';", "DIRECT"),
        (TEN_THOUSAND_LINES + "return 'PROXY last:1';", "PROXY last:1"),
    ],
    ids=lambda text: str(text)[-60:],
)  # fmt: skip
def test_answer(run: Evaluate, body: str, answer: str) -> None:
    assert run(function(body)) == [answer]


@pytest.mark.parametrize(
    ("script", "complaint"),
    [
        ("", "."),
        ("function FindProxyForURL(url, host) {", "not a proxy configuration file"),
        ("<html><body>Please log in</body></html>", "not a proxy configuration file"),
        ("throw new Error('no');", "not a proxy configuration file"),
        ("var x = 1;", "."),
        (function("return null;"), "returns nothing"),
        (function(""), "returns nothing"),
        (function("throw new Error('no');"), "FindProxyForURL failed"),
        (function("return nosuch(host);"), "FindProxyForURL failed"),
        (function("function f() { return f(); } return f();"), "."),
    ],
    ids=lambda text: str(text)[-60:],
)
def test_file_without_an_answer(run: Evaluate, script: str, complaint: str) -> None:
    with pytest.raises(PacFault, match=complaint):
        run(script)


@pytest.mark.parametrize(
    "script",
    [
        "while (true) {}",
        function("while (true) {}"),
        function("while (true) alert('noise');"),
        function("var a = []; while (true) a.push('x'.repeat(1e6) + a.length);"),
    ],
    ids=("file", "function", "noise", "memory"),
)
def test_endless_file_is_stopped(script: str) -> None:
    # By the kernel; on a machine with much else to do, by us.
    ends = r"too much time|FindProxyForURL failed|no answer within"
    with pytest.raises(PacFault, match=ends):
        evaluate(script.encode(), [URL], ADDRESS, environment={})


def test_file_of_any_encoding(run: Evaluate) -> None:
    text = function("return 'DIRECT'; // Grüße")
    assert run(text.encode()) == ["DIRECT"]
    assert run(text.encode("latin-1")) == ["DIRECT"]
    assert run(b"\xef\xbb\xbf" + text.encode()) == ["DIRECT"]
    assert run(b"\0" + text.encode()) == ["DIRECT"]


def test_servers_are_asked_for_one_after_the_other(run: Evaluate) -> None:
    body = "if (host == 'a') throw 1; if (host == 'b') return null; return host;"
    answers = run(
        function(body), "http://a/x", "http://b/x", "http://c:1/x", "http://d"
    )
    assert answers == ["c", "d"]


def test_what_was_said_before_the_end_counts() -> None:
    script = function("if (host == 'b') while (true) {} return host;").encode()
    urls = ("http://a/x", "http://b/x", "http://c/x")
    assert evaluate(script, urls, ADDRESS, environment={}) == ["a"]


def test_url_is_no_script(run: Evaluate) -> None:
    url = "http://a/'+(function(){return'x'})()+'\\"
    assert "function" in run(function("return url;"), url)[0]


def test_long_answer_is_cut(run: Evaluate) -> None:
    answers = run(function("return 'PROXY a:1;'.repeat(1e6);"))
    assert len(answers[0]) <= 1 << 16


def test_nothing_of_ours_is_there_to_be_found(
    run: Evaluate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "password")
    body = "return typeof require + ' ' + JSON.stringify(globalThis.process || null);"
    assert "password" not in run(function(body))[0]
    assert run(function("return 'is ' + typeof require;")) == ["is undefined"]


def test_output_that_nobody_waits_for_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    endless = "import os\nwhile True: os.write(1, b'=x' * 10000)"
    monkeypatch.setattr(pac_evaluation, "_START", endless)
    with pytest.raises(PacFault, match="too much"):
        evaluate(b"", [URL], ADDRESS, environment={})


def test_who_closes_its_output_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    code = "import os, time; os.write(1, b'=DIRECT\\n'); os.close(1); time.sleep(600)"
    monkeypatch.setattr(pac_evaluation, "_START", code)
    monkeypatch.setattr(pac_evaluation, "_EXIT_TIME_LIMIT_S", 0.2)
    assert evaluate(b"", [URL], ADDRESS, environment={}) == ["DIRECT"]


def test_who_waits_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pac_evaluation, "_START", "import time; time.sleep(600)")
    monkeypatch.setattr(pac_evaluation, "TIME_LIMIT_S", 0.2)
    with pytest.raises(PacFault, match="no answer within"):
        evaluate(b"", [URL], ADDRESS, environment={})


@pytest.mark.parametrize("output", [b"=a", b"\n\n", b"\xff\xfe\n", b"x\n" * 100])
def test_output_of_an_engine_that_was_taken_over(
    monkeypatch: pytest.MonkeyPatch, output: bytes
) -> None:
    said = f"import os; os.write(1, {output!r})"
    monkeypatch.setattr(pac_evaluation, "_START", said)
    with pytest.raises(PacFault, match="no answer"):
        evaluate(b"", [URL], ADDRESS, environment={})


def test_engine_that_crashes(monkeypatch: pytest.MonkeyPatch) -> None:
    crash = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"
    monkeypatch.setattr(pac_evaluation, "_START", crash)
    with pytest.raises(PacFault, match="died of signal 11"):
        evaluate(b"", [URL], ADDRESS, environment={})


def test_engine_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pac_evaluation, "_ENGINES", ("nosuch", "other"))
    with pytest.raises(PacFault, match="nosuch or other"):
        find_engine()


def test_interpreter_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    with pytest.raises(PacFault, match="cannot run /nonexistent/python"):
        evaluate(b"", [URL], ADDRESS, environment={})


def test_it_dies_with_its_parent(tmp_path: Path) -> None:
    code = (
        "from cvmfsexec.network.pac_evaluation import evaluate\n"
        "script = b'function FindProxyForURL(u, h) { alert(1); while (true) {} }'\n"
        "evaluate(script, ['http://a/x'], '10.0.0.1', environment={})\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path)
    children: list[int] = []

    def has_child() -> bool:
        listed = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
        children[:] = map(int, listed.split())
        return bool(children) and _is_hanging_on(children[0])

    try:
        wait_until(has_child, "the engine has started")
    finally:
        process.kill()
        process.wait()
    wait_until(lambda: not _is_running(children[0]), "the engine has ended")


def test_its_descriptors_are_those_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    listing = (
        "import os; os.write(1, b'=' + b' '.join("
        "os.readlink(path).encode() for n in os.listdir('/proc/self/fd')"
        " if os.path.lexists(path := f'/proc/self/fd/{n}')) + b'\\n')"
    )
    monkeypatch.setattr(pac_evaluation, "_START", listing)
    leak = os.open("/etc/hostname", os.O_RDONLY)
    os.set_inheritable(leak, True)  # noqa: FBT003 -- no keyword
    try:
        found = evaluate(b"", [URL], ADDRESS, environment={})[0]
    finally:
        os.close(leak)
    assert "hostname" not in found
    assert found.count("pipe:") == 2


def test_signals_that_we_block_do_not_matter(run: Evaluate) -> None:
    old = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        assert run(function("return 'DIRECT';")) == ["DIRECT"]
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old)


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("http://a.example.org:8000/cvmfs/x", "a.example.org"),
        ("http://u:p@a/x", "a"),
        ("https://[::1]:8000/x", "::1"),
        ("file:///x", ""),
    ],
)
def test_host_of(url: str, host: str) -> None:
    assert host_of(url) == host


def _is_hanging_on(pid: int) -> bool:
    """Whether a process has told the kernel what is to happen when its parent ends."""
    try:
        flags = [
            int(line.split()[1], 8)
            for entry in Path(f"/proc/{pid}/fdinfo").iterdir()
            for line in entry.read_text().splitlines()
            if line.startswith("flags:")
        ]
    except OSError:
        return False
    return any(each & 0o20000 for each in flags)  # FASYNC


def _is_running(pid: int) -> bool:
    try:
        return (
            Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        )
    except OSError:
        return False
