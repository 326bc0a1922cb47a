"""The generated reference: all that a user can write has a page and a description; the site builds strictly."""

from __future__ import annotations

import html
import logging
import re
import subprocess
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages
from typing import Any

import click
import pytest
from pydantic import BaseModel

from docs.generate.files import FILES, resolve
from docs.generate.hook import PAGES
from docs.generate.models import EXAMPLES, models, type_text
from einsight.command import COMMANDS, einsight
from einsight.documents import DOCUMENTS
from einsum.units import parse_quantity

ROOT = Path(__file__).parent.parent.parent
PACKAGES = ("einsum", "architectures", "workloads", "mappings", "bounds", "simulator", "explorer", "kernels")
SHOWN = {model for kind in FILES.values() for place in kind.models for model in models(resolve(place))}


def described_models() -> list[type[BaseModel]]:
    """Every model of the packages that has fields of its own."""
    found: dict[type[BaseModel], None] = {}
    for package in map(import_module, PACKAGES):
        for module in walk_packages(package.__path__, f"{package.__name__}."):
            if module.name.startswith("kernels."):
                continue  # kernels read no models, and some of their modules need Triton
            for value in vars(import_module(module.name)).values():
                if isinstance(value, type) and issubclass(value, BaseModel) and value.__module__.startswith(PACKAGES):
                    found[value] = None
    return [model for model in found if model.model_fields]


@pytest.mark.parametrize("model", described_models(), ids=lambda model: f"{model.__module__}.{model.__name__}")
def test_every_model_is_on_a_page_and_every_field_has_a_description(model: type[BaseModel]) -> None:
    assert model in SHOWN, "no kind of file in docs/generate/files.py leads to it"
    assert model.__doc__
    assert not [name for name, field in model.model_fields.items() if not field.description and not field.exclude]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_field_of_a_document_has_a_description(name: str) -> None:
    for model in models(DOCUMENTS[name]):
        assert model.__doc__
        fields = {} if "root" in model.model_fields else model.model_fields
        assert not [field for field, about in fields.items() if not about.description]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_explained_and_the_example_can_be_parsed(name: str) -> None:
    import shlex

    command = einsight.get_command(click.Context(einsight), name)
    assert command is not None and command.help
    assert not [option.name for option in command.params if isinstance(option, click.Option) and not option.help]
    words = shlex.split((command.epilog or "").removeprefix("Example: "))
    assert words[:2] == ["einsight", name]
    command.make_context(name, words[2:])


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (int | None, "whole number"),
        (str | list[str] | None, "text or list of text"),
        (dict[str, list[float]], "name → list of number"),
        (tuple[str | int, ...], "list of (text or whole number)"),
        (tuple[int, int], "[whole number, whole number]"),
        (Any, "anything"),
    ],
)
def test_types_are_told_in_words(kind: Any, text: str) -> None:
    assert type_text(kind) == text


def test_quantities_are_told_by_examples_that_can_be_read() -> None:
    from architectures import Architecture

    assert all(parse_quantity(text, dimension) > 0 for dimension, text in EXAMPLES.items())
    field = Architecture.model_fields["clock"]
    assert "940 MHz" in PAGES["reference/architecture.md"]()
    assert field.description


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site; a broken link, a page without a place or a place without a page fails."""
    config = pytest.importorskip("mkdocs.config", reason="the site needs mkdocs-material: pip install einsight[docs]")
    build = import_module("mkdocs.commands.build")
    logging.getLogger("mkdocs").setLevel(logging.WARNING)
    folder = tmp_path_factory.mktemp("site")
    loaded = config.load_config(str(ROOT / "mkdocs.yml"), site_dir=str(folder))
    assert loaded.strict
    loaded.plugins.on_startup(command="build", dirty=False)
    build.build(loaded)
    return folder


@pytest.mark.filterwarnings("default")
def test_the_site_builds_strictly_and_loads_nothing_from_the_network(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > len(PAGES)
    for page in pages:
        loaded = re.findall(r'<(?:script|link|img|iframe)[^>]+(?:src|href)="(https?:[^"]+)"', page.read_text("utf-8"))
        assert not loaded, page


@pytest.mark.filterwarnings("default")
@pytest.mark.browser
def test_the_site_is_searched_without_a_server(site: Path, tmp_path: Path, chromium: str) -> None:
    script = """<script>setTimeout(() => {
      document.querySelector('label[for=__search]').click();
      const query = document.querySelector('[data-md-component=search-query]');
      query.focus(); query.dispatchEvent(new FocusEvent('focus')); query.value = 'FlashAttention';
      query.dispatchEvent(new KeyboardEvent('keyup', {bubbles: true}));
    }, 500)</script></body>"""
    page = site / "searched.html"
    page.write_text((site / "index.html").read_text("utf-8").replace("</body>", script), encoding="utf-8")
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--virtual-time-budget=20000",
        f"--user-data-dir={tmp_path}",
    ]
    done = subprocess.run(
        [chromium, *options, "--dump-dom", page.as_uri()], capture_output=True, text=True, timeout=120
    )
    found = re.search(r'class="md-search-result__meta">([^<]*)<', done.stdout)
    assert found and re.fullmatch(r"\s*\d+ matching documents?\s*", html.unescape(found[1]))
