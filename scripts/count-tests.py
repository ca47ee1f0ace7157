#!/usr/bin/env python3
"""Count what a meson test run reports: count-tests.py testlog.junit.xml FAILURES

Prints "PASSED FAILED SKIPPED", each subtest counted as one, and writes the names of the failed ones to FAILURES, below
each what it said, indented. A test file that fails as a whole (a crash, a time limit) without a failed subtest counts
as one failed.
"""
import sys
import xml.etree.ElementTree as xml


def label(suite, case=None):
    """"mount: 3 - the disk is there", or "shell" for a test without subtests."""
    test = suite.get("name").split(" / ")[-1]
    subtest = case.get("name") if case is not None else "ended badly"
    return subtest.split(" / ")[-1] if " / " in subtest else f"{test}: {subtest}"


def reasons(suite, case):
    """The comments that follow "not ok NUMBER - NAME" in the test's output, at most ten."""
    number, lines, found = case.get("name").split(" ")[0], [], False
    for line in (suite.findtext("system-out") or "").splitlines():
        if found and line.startswith("#"):
            lines.append("    " + line.lstrip("# "))
        elif not line.startswith("#"):
            found = line.split(" ")[:3] == ["not", "ok", number]
    return lines[:10]


def count(suite, failures):
    passed = failed = skipped = 0
    cases = suite.findall("testcase")
    for case in cases:
        if case.find("failure") is not None or case.find("error") is not None:
            failed += 1
            failures.append(label(suite, case))
            failures.extend(reasons(suite, case))
        elif case.find("skipped") is not None:
            skipped += 1
        else:
            passed += 1
    broken = int(suite.get("errors", 0)) + int(suite.get("failures", 0))
    if broken and not failed:
        failed = 1
        failures.append(label(suite))
    return passed, failed, skipped


failures = []
totals = [0, 0, 0]
for suite in xml.parse(sys.argv[1]).getroot().iter("testsuite"):
    totals = [a + b for a, b in zip(totals, count(suite, failures))]
print(*totals)
with open(sys.argv[2], "w", encoding="utf-8") as file:
    file.writelines(name + "\n" for name in failures)
