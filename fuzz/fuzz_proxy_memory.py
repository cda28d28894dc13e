"""Any remembered text is findings that are written and read back, or nothing."""

from cvmfsexec.network.discovery_memory import format_findings, parse_findings


def target(data: bytes) -> None:
    """Raise only on a finding."""
    findings = parse_findings(data.decode("ascii", "replace"))
    assert parse_findings(format_findings(findings)) == [
        one._replace(note=one.note[:500]) for one in findings
    ]
    for one in findings:
        assert not any(group.is_auto for group in one.groups)
