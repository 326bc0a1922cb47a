"""The report in a real browser: it draws, answers the pointer, and reruns a point."""

from __future__ import annotations

import html
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

from einsight.command import main
from explorer.executors import InProcess
from explorer.report import render_report
from explorer.running import plan, run
from explorer.store import Store
from explorer.sweep import Sweep

pytestmark = pytest.mark.browser

SPEC: dict[str, Any] = {
    "sweep": "page",
    "mapping": ["fusemax-architecture", "fusemax-binding"],
    "workload": "bert-base",
    "set": {"L": 4096},
    "variables": {"W": [64, 96, 128, 256], "buffer": ["1 KiB", "8 MiB", "16 MiB"]},
    "columns": {
        "latency": {"value": "latency_s", "dimension": "s"},
        "energy": {"value": "energy_j", "dimension": "j"},
    },
    "objectives": ["latency", "W"],
}


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The report of a small sweep."""
    folder = tmp_path_factory.mktemp("page")
    planned = plan(Sweep.parse(SPEC))
    with Store.create(folder, planned.about(), planned.study.varying, tuple(planned.study.columns)) as store:
        run(planned, store, InProcess(planned.study))
        return render_report(store)


def opened(chromium: str, folder: Path, page: str, script: str = "") -> str:
    """The document after its scripts and then `script` have run, as Chromium prints it."""
    path = folder / "page.html"
    path.write_text(page.replace("</body>", f"<script>{script}</script></body>"), encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--window-size=1280,1000", "--virtual-time-budget=3000"]
    command = [chromium, *options, f"--user-data-dir={folder}/profile", "--dump-dom", path.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-500:]
    return done.stdout


def text_of(dom: str, identity: str) -> str:
    found = re.search(rf'id="{identity}"[^>]*>(.*?)</(?:p|code|div|span|table)>', dom, re.DOTALL)
    assert found, identity
    return html.unescape(re.sub(r"<[^>]+>", " ", found[1]))


def test_the_page_opens_from_disk_and_shows_its_points(chromium: str, tmp_path: Path, page: str) -> None:
    dom = opened(chromium, tmp_path, page)
    assert 'data-ready="yes"' in dom
    assert text_of(dom, "counts") == (
        "24 points (grid, analytic); 8 failed; 8 on the Pareto front for small latency and small W."
    )
    assert text_of(dom, "shown") == "All points are shown."
    assert dom.count("data-row=") == 8
    assert dom.count("<canvas") == 3
    assert "Points that failed, by error" in dom


def test_the_charts_are_painted(chromium: str, tmp_path: Path, page: str) -> None:
    script = """
      document.body.dataset.painted = charts.map(chart => {
        const pen = chart.canvas.getContext("2d"), colors = new Set();
        const all = pen.getImageData(0, 0, chart.canvas.width, chart.canvas.height).data;
        for (let i = 0; i < all.length; i += 4) if (all[i + 3] > 250) colors.add(all.slice(i, i + 3).join());
        return [...Array(size).keys()].filter(row => data.columns.latency.values[row] !== null).every(row => {
          const x = chart.places[2 * row], y = chart.places[2 * row + 1];
          return x > 0 && y > 0 && pen.getImageData(x * devicePixelRatio, y * devicePixelRatio, 1, 1).data[3] > 0;
        }) && colors.size > 3;
      }).join(" ");
    """
    assert 'data-painted="true true true"' in opened(chromium, tmp_path, page, script)


def test_hovering_shows_all_inputs_of_the_point(chromium: str, tmp_path: Path, page: str) -> None:
    script = """
      const row = data.point.findIndex((_, r) => data.columns.W.values[r] === 96 && onFront[r]);
      const at = charts[0].canvas.getBoundingClientRect();
      const where = {clientX: at.left + charts[0].places[2 * row], clientY: at.top + charts[0].places[2 * row + 1]};
      charts[0].canvas.dispatchEvent(new MouseEvent("mousemove", where));
      const cells = line => [...line.children].map(cell => cell.textContent).join("=");
      document.body.dataset.tip = $("tip").style.display + "|" +
        [...$("tip").querySelectorAll("tr")].map(cells).join(";");
    """
    dom = opened(chromium, tmp_path, page, script)
    found = re.search(r'data-tip="([^"]*)"', dom)
    assert found
    display, facts = html.unescape(found[1]).split("|")
    shown = dict(fact.split("=") for fact in facts.split(";"))
    assert display == "block"
    assert {"workload": "bert-base", "L": "4Ki", "W": "96"}.items() <= shown.items()
    assert {"mapping", "buffer", "latency", "energy"} <= shown.keys()


def test_clicking_a_row_gives_a_command_that_reruns_the_point(
    chromium: str, tmp_path: Path, page: str, capsys: pytest.CaptureFixture[str]
) -> None:
    script = """
      const line = document.querySelectorAll("#best tbody tr")[3];
      line.click();
      document.body.dataset.latency = data.columns.latency.values[+line.dataset.row];
    """
    dom = opened(chromium, tmp_path, page, script)
    words = shlex.split(text_of(dom, "command"))
    assert words[:2] == ["einsight", "simulate"]
    assert main([*words[1:], "--json"]) == 0
    rerun = re.search(r'"latency_s": ([\d.e+-]+)', capsys.readouterr().out)
    shown = re.search(r'data-latency="([\d.e+-]+)"', dom)
    assert rerun and shown
    assert float(rerun[1]) == pytest.approx(float(shown[1]), rel=1e-6)


def test_any_two_results_against_any_input(chromium: str, tmp_path: Path, page: str) -> None:
    script = """
      const before = charts[1].places.slice();
      charts[1].y.value = "energy"; charts[1].x.value = "mapping"; charts[1].x.onchange();
      const row = data.point.findIndex((_, r) => data.columns.latency.values[r] !== null);
      const listed = select => [...select.options].map(option => option.value).join();
      document.body.dataset.options = listed(charts[1].x) + "|" + listed(charts[1].y);
      document.body.dataset.moved = [0, 1].every(i => before[2 * row + i] !== charts[1].places[2 * row + i]);
    """
    dom = opened(chromium, tmp_path, page, script)
    assert 'data-options="mapping,W,buffer|latency,energy"' in dom
    assert 'data-moved="true"' in dom


def test_sorting_the_table_by_a_column(chromium: str, tmp_path: Path, page: str) -> None:
    script = """
      [...document.querySelectorAll("#best th")].find(cell => cell.textContent.startsWith("energy")).click();
      document.body.dataset.sorted = [...document.querySelectorAll("#best tbody tr")]
        .map(line => data.columns.energy.values[+line.dataset.row]).join(" ");
    """
    found = re.search(r'data-sorted="([^"]*)"', opened(chromium, tmp_path, page, script))
    assert found
    energies = [float(value) for value in found[1].split()]
    assert energies == sorted(energies) and len(energies) == 8


def test_the_command_of_a_mapped_point_takes_its_mapping_from_the_store(
    chromium: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = {
        "sweep": "mapped",
        "cascade": "matmul",
        "architecture": "fusemax",
        "mapping": {"find": "dram"},
        "set": {"K": 64, "N": 64},
        "variables": {"M": [32, 64], "buffer": ["1 KiB", "64 KiB"]},
        "columns": {"latency": {"value": "latency_s", "dimension": "s"}, "area": {"value": "area_mm2"}},
        "objectives": ["latency", "area"],
        "front": {"by": "M"},
    }
    planned = plan(Sweep.parse(spec))
    monkeypatch.chdir(tmp_path)
    with Store.create(tmp_path, planned.about(), planned.study.varying, tuple(planned.study.columns)) as store:
        run(planned, store, InProcess(planned.study))
        page = render_report(store)
    script = """
      const line = document.querySelectorAll("#best tbody tr")[1];
      line.click();
      document.body.dataset.latency = data.columns.latency.values[+line.dataset.row];
      document.body.dataset.groups = data.groups.map(g => g.values.join()).join(" ");
    """
    dom = opened(chromium, tmp_path, page, script)
    assert 'data-groups="M,32 M,64"' in dom and "Pareto fronts" in dom
    shown = re.search(r'data-latency="([\d.e+-]+)"', dom)
    commands = [shlex.split(line) for line in text_of(dom, "command").splitlines()]
    assert [words[:2] for words in commands] == [["einsight", "report"], ["einsight", "simulate"]]
    assert main(commands[0][1:]) == 0
    capsys.readouterr()
    assert main([*commands[1][1:], "--json"]) == 0
    rerun = re.search(r'"latency_s": ([\d.e+-]+)', capsys.readouterr().out)
    assert rerun and shown
    assert float(rerun[1]) == pytest.approx(float(shown[1]), rel=1e-6)
