"""How often `oracle.answers` agrees with the test suites of public graders.

    python benchmarks/answers.py public_development.jsonl public_held_out.jsonl

A line of these files is a pair as JSON: `given`, `expected`, `equal` (the suite's
verdict), `suite`, and where they apply `scope` (why it asks for something that
`same_answer` is not for) and `cause` (why we disagree, as somebody read it). The pairs
belong to their suites and are not part of this repository.

Writes `benchmarks/results/answers.json`, counts alone, and what stands between the
`answers` markers of docs/oracle.md. Sets that the command does not name keep their
figures, with the commit that they were measured at.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from compare_table import ROOT, commit, one_line_each, replace_between, table

from aprm_jax.oracle.answers import Outcome, same_answer

RESULTS = ROOT / "benchmarks/results/answers.json"
UNREAD = "not read yet"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pairs", nargs="+", type=Path, help="JSON lines; see above")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--page", type=Path, default=ROOT / "docs/oracle.md")
    args = parser.parse_args()
    results: dict = json.loads(args.out.read_text()) if args.out.exists() else {}
    for path in args.pairs:
        lines = path.read_text(encoding="utf-8").splitlines()
        found = {"command": f"python benchmarks/answers.py {path.name}"}
        results[path.stem] = found | {"commit": commit()}
        results[path.stem] |= measure(map(json.loads, lines))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(one_line_each(results))
    replace_between(args.page, "answers", render(results))


def measure(pairs: Iterable[dict]) -> dict:
    """Counts of pairs and agreements: all, in scope, by suite; causes of the others."""
    counts = {name: Counter() for name in ("all", "in scope")}
    suites: dict[str, Counter] = {}
    outside: Counter = Counter()
    causes: Counter = Counter()
    for pair in pairs:
        verdict = same_answer(pair["given"], pair["expected"])
        agrees = verdict.equal == pair["equal"]
        rows = [counts["all"], suites.setdefault(pair["suite"], Counter())]
        if "scope" in pair:
            outside[pair["scope"]] += 1
        else:
            rows.append(counts["in scope"])
        for row in rows:
            row["pairs"] += 1
            row["different"] += not pair["equal"]
            row["agreed"] += agrees
            row["different, agreed"] += agrees and not pair["equal"]
            row["unreadable"] += verdict.outcome is Outcome.UNREADABLE
        if not agrees and "scope" not in pair:
            causes[pair.get("cause", UNREAD)] += 1
    return {
        **{name: dict(row) for name, row in counts.items()},
        "left out": dict(outside.most_common()),
        "causes": dict(causes.most_common()),
        "suites": {name: dict(row) for name, row in sorted(suites.items())},
    }


def render(results: dict) -> str:
    """The tables as Markdown."""
    halves = {k: v for k, v in results.items() if isinstance(v, dict)}
    rows = []
    for half, found in halves.items():
        for part in ("all", "in scope"):
            row = found[part]
            if part == "all" and row == found["in scope"]:
                continue
            same = row["pairs"] - row["different"]
            agreed_same = row["agreed"] - row["different, agreed"]
            cells = [f"{row['pairs']:,}", f"{row['different']:,}"]
            cells += [
                _share(row["agreed"], row["pairs"]),
                _share(agreed_same, same),
                _share(row["different, agreed"], row["different"]),
            ]
            cells.append(f"`{found['commit'][:7]}`")
            rows.append((f"{half.replace('_', ' ')}, {part}", cells))
    header = ["pairs of public graders", "pairs", "of these different"]
    header += ["agreement", "on the equal", "on the different", "measured at"]
    parts = [table(header, rows)]
    titles = [half.replace("_", " ") for half in halves]
    for key, title in (("left out", "out of scope"), ("causes", "disagreements")):
        reasons = dict.fromkeys(r for found in halves.values() for r in found[key])
        lines = [
            (reason, [str(found[key].get(reason, 0)) for found in halves.values()])
            for reason in reasons
        ]
        parts.append(table([f"{title}, by cause", *titles], lines))
    return "\n\n".join([*parts, "Made by `benchmarks/answers.py`."])


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "–"


if __name__ == "__main__":
    main()
