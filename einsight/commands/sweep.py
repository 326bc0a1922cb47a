"""`einsight sweep`: many design points of one YAML file, stored as they are evaluated."""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from einsight.options import FILE, json_option, out_option
from einsight.output import print_json, quantity
from einsight.table import Column, render_fields, render_table

if TYPE_CHECKING:
    from explorer.front import Front
    from explorer.running import Plan, Progress
    from explorer.store import Store

_LINE_S = 0.2
_LOG_LINE_S = 30.0
_SHOWN = 10


@click.command(epilog="Example: einsight sweep docs/examples/fusemax-array-size.yaml --out out/array-size")
@click.argument("spec", type=FILE, metavar="SPEC.yaml")
@out_option("DIR", "Folder of the results store. A sweep that was stopped goes on here.")
@click.option("--dry-run", is_flag=True, help="Only say how many points there are and how long they take.")
@click.option("--results", is_flag=True, help="Only list the results that expressions may use.")
@click.option("--workers", type=click.IntRange(1, 1024), metavar="N", help="Processes that evaluate points.")
@click.option("--scheduler", metavar="ADDRESS", help="Evaluate on a Dask cluster, as in tcp://host:8786.")
@click.option("--force", is_flag=True, help="Put results of another sweep in DIR aside, under another file name.")
@json_option
def command(
    spec: str,
    out: str | None,
    dry_run: bool,
    results: bool,
    workers: int | None,
    scheduler: str | None,
    force: bool,
    as_json: bool,
) -> None:
    """Evaluate the design points of a sweep file and store every one; `einsight report DIR` shows them."""
    from einsum.errors import EinsightError
    from explorer.running import known_results, plan
    from explorer.sweep import Sweep

    if workers is not None and scheduler is not None:
        raise click.UsageError("--workers and --scheduler exclude each other")
    if dry_run and results:
        raise click.UsageError("--dry-run and --results exclude each other")
    if out is None and not dry_run and not results:
        raise click.UsageError("Missing option '--out'")
    try:
        sweep = Sweep.load(spec)
        listed = known_results(sweep) if results else None
        ready = None if results else plan(sweep)
    except EinsightError as error:
        raise error.located(file=spec) from None
    if listed is not None or ready is None:
        _list_results(sweep.name, listed or {}, as_json)
        return
    if dry_run:
        document = _forecast(ready, workers, Path(out) if out else None)
    else:
        assert out is not None
        document = _sweep(ready, Path(out), workers, scheduler, force)
    if as_json:
        print_json(document)
    else:
        click.echo(_dry_text(document) if dry_run else _text(document, ready, str(out)))


def _list_results(name: str, listed: dict[str, Any], as_json: bool) -> None:
    """Print the results that expressions may use, with their values at one of the points."""
    if as_json:
        print_json({"sweep": name, "results": listed})
        return
    rows = [[result, value if isinstance(value, str) else f"{value:.6g}"] for result, value in sorted(listed.items())]
    click.echo(render_table([Column("result"), Column("at one of the points")], rows))


def _sweep(ready: Plan, folder: Path, workers: int | None, scheduler: str | None, force: bool) -> dict[str, Any]:
    from einsum.files import output_folder
    from explorer.front import read_front
    from explorer.running import choose_executor, run
    from explorer.store import Store, put_aside

    start = time.perf_counter()
    # The workers come first: where there are none, no folder is made.
    with choose_executor(ready, workers, scheduler) as executor, output_folder(folder):
        aside = put_aside(folder) if force else None
        if aside:
            click.echo(f"earlier results are now in {aside}", err=True)
        with Store.create(folder, ready.about(), ready.study.varying, tuple(ready.study.columns)) as store:
            line = _ProgressLine()
            try:
                run(ready, store, executor, line.show)
            except KeyboardInterrupt:
                line.end()
                click.echo(f"stopped; {store.count():,} points are stored, and the same command continues", err=True)
                raise
            finally:
                line.end()
            return {
                "sweep": ready.sweep.name,
                "folder": str(folder),
                "elapsed_s": time.perf_counter() - start,
                **_counts(store, line.last),
                **_front_document(read_front(store)),
            }


def _counts(store: Store, progress: Progress | None) -> dict[str, int]:
    return {
        "points": store.count(),
        "added": progress.added if progress else 0,
        "failed": store.count("error IS NOT NULL"),
        "infeasible": store.count("feasible = 0"),
    }


def _front_document(front: Front) -> dict[str, Any]:
    return {
        "objectives": {name: "minimize" if sign > 0 else "maximize" for name, sign in front.signs.items()},
        "front_by": list(front.by),
        "front_size": len(front.points),
        "front_places": len(front.leaders),
        "front": front.rows(_SHOWN),
    }


def _forecast(ready: Plan, workers: int | None, folder: Path | None) -> dict[str, Any]:
    from explorer.executors import processors
    from explorer.running import choose_workers, seconds_per_point
    from explorer.store import FILE, Store

    stored = 0
    if folder and (folder / FILE).is_file():
        with Store.open(folder) as store:
            stored = store.count() if store.about()["identity"] == ready.identity() else 0
    used = min(choose_workers(ready, workers), processors())
    point_s = seconds_per_point(ready)
    return {
        "sweep": ready.sweep.name,
        "sampler": ready.sweep.sampler.kind,
        "space": ready.sweep.space().size or None,
        "points": ready.size,
        "stored": stored,
        "seconds_per_point": point_s,
        "workers": used,
        "estimated_s": max(0, ready.size - stored) * point_s / used,
    }


def _dry_text(document: dict[str, Any]) -> str:
    space = f"{document['space']:,}" if document["space"] else "not countable: a range is continuous"
    return render_fields(
        [
            ("sweep", document["sweep"]),
            ("space", f"{space}" + (" points before constraints" if document["space"] else "")),
            ("points", f"{document['points']:,} to evaluate ({document['sampler']}), {document['stored']:,} stored"),
            (
                "rate",
                f"{_rate(1 / document['seconds_per_point'])} points/s on each of {document['workers']} processors",
            ),
            ("time", f"about {_duration(document['estimated_s'])}"),
        ]
    )


def _text(document: dict[str, Any], ready: Plan, out: str) -> str:
    added, points = document["added"], document["points"]
    fields = [
        ("sweep", document["sweep"]),
        ("points", f"{points:,}, {added:,} of them new in {_duration(document['elapsed_s'])}"),
    ]
    if document["infeasible"]:
        fields.append(("infeasible", f"{document['infeasible']:,} of the points break a constraint on results"))
    if document["failed"]:
        fields.append(("failed", f"{document['failed']:,} of the points; `einsight report` shows the errors"))
    parts = [render_fields(fields)]
    if document["front"]:
        size, places, rows = document["front_size"], document["front_places"], document["front"]
        title = f"Pareto front for {' and '.join(document['objectives'])}"
        title += f", one for each {' and '.join(document['front_by'])}" if document["front_by"] else ""
        title += f": {places:,} point{'s' * (places > 1)}"
        title += (
            f" (and {size - places:,} that tie with {'it' if places == 1 else 'one of them'})" if size > places else ""
        )
        title += f"; {len(rows)} shown, from end to end" if places > len(rows) else ""
        parts.append(f"{title}\n\n{_front_table(rows, ready)}")
    parts.append(f"einsight report {out}")
    return "\n\n".join(parts)


def _front_table(rows: list[dict[str, Any]], ready: Plan) -> str:
    names = [name for name in rows[0] if name != "point"]
    names = [name for name in names if name in ready.study.varying or name in {o.name for o in ready.objectives}]
    by = ready.sweep.front.by
    # By its number the mapping that was found for a point is taken from the store.
    names = [*(["point"] if ready.sweep.finds() else []), *by, *(name for name in names if name not in by)]
    cells = [[_cell(row[name], name, ready) for name in names] for row in rows]
    titles = [Column(name.replace("_", " "), right=not isinstance(rows[0][name], str)) for name in names]
    starts = [place for place, row in enumerate(rows) if place and any(row[n] != rows[place - 1][n] for n in by)]
    for place in reversed(starts if len(starts) + 1 < len(rows) else []):
        cells.insert(place, [""] * len(names))
    return render_table(titles, cells)


def _cell(value: Any, name: str, ready: Plan) -> str:
    if name in ready.study.columns:
        return quantity(float(value), ready.study.columns[name].dimension)
    return f"{value:,}" if isinstance(value, int) else f"{value:.6g}" if isinstance(value, float) else str(value)


class _ProgressLine:
    """One line about the sweep on standard error: redrawn where a person looks at it, else added now and then."""

    def __init__(self) -> None:
        self.last: Progress | None = None
        self._terminal = sys.stderr.isatty()
        self._next = time.monotonic() + (0 if self._terminal else _LOG_LINE_S)

    def show(self, progress: Progress) -> None:
        """Show how far the sweep is, unless it was shown a moment ago."""
        self.last = progress
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + (_LINE_S if self._terminal else _LOG_LINE_S)
        line = f"{progress.stored:,}/{progress.total:,} points"
        if progress.gained:
            line += f", {_rate(progress.per_s)}/s, {_duration(progress.left_s)} left"
        if progress.failed:
            line += f", {progress.failed:,} failed"
        done = math.floor(24 * progress.stored / max(progress.total, 1))
        bar = "━" * done + "─" * (24 - done)
        print(f"\r\033[K{bar} {line}" if self._terminal else line, end="" if self._terminal else "\n", file=sys.stderr,
              flush=True)  # fmt: skip

    def end(self) -> None:
        """Leave the line empty."""
        if self._terminal:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def _rate(per_s: float) -> str:
    return f"{per_s:,.0f}" if per_s >= 10 else f"{per_s:.2g}"


def _duration(seconds: float) -> str:
    if math.isinf(seconds):
        return "unknown"
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
