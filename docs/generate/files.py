"""The reference of YAML files: a page for each kind, made from its models and an example in use."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from docs.generate.models import sections

ROOT = Path(__file__).parent.parent.parent


@dataclass(frozen=True)
class FileKind:
    """A kind of YAML file: the models behind it, as `module:name`, a file that shows it, and what it is for."""

    title: str
    models: tuple[str, ...]
    example: str
    text: str


FILES = {
    "cascade": FileKind(
        "Cascade", ("einsum.cascade_file:CascadeFile",), "einsum/library/attention-3pass.yaml",
        "What is computed: extended Einsums over named ranks ([the notation](../concepts.md#cascade)).",
    ),
    "architecture": FileKind(
        "Architecture", ("architectures:Architecture",), "architectures/library/flexgen-ssd.yaml",
        "What it runs on: memories, units and other parts. Every number is an expression of the file's variables.",
    ),
    "workload": FileKind(
        "Workload", ("workloads:Workload",), "workloads/library/xlm.yaml",
        "At what size: the extents of one layer of a model.",
    ),
    "mapping": FileKind(
        "Mapping", ("mappings.mapping:Header", "mappings.schema:Node"), "mappings/library/fusemax-binding.yaml",
        "How it is run: a header and one body. A body is a `nest`, a list of the nodes below "
        "([the mapping language](../mappings.md)), a [`plan`](plan.md), or a GPU [`kernel`](gpu-kernel.md).",
    ),
    "plan": FileKind(
        "Mapping: plan of phases", ("mappings.plan:PhasePlan",), "mappings/library/llm-in-a-flash.yaml",
        "The body `plan:` of a [mapping](mapping.md): phases of stages, for a run over a system of devices, or for "
        "one whose sizes come row by row from a trace ([storage](../storage.md), [SpAtten](../spatten.md)).",
    ),
    "gpu-kernel": FileKind(
        "GPU kernel", ("mappings.gpu.kernel:GpuKernel",), "mappings/gpu/library/copy.yaml",
        "A kernel as grids of thread blocks, for [`einsight compare`](commands.md#einsight-compare).",
    ),
    "experiment": FileKind(
        "Experiment", ("explorer.experiment:Experiment",), "docs/examples/llm-in-a-flash.yaml",
        "Many simulations, the quantities wanted of each, tables and figures, for "
        "[`einsight run`](commands.md#einsight-run).",
    ),
    "sweep": FileKind(
        "Sweep", ("explorer.sweep:Sweep",), "docs/examples/fusemax-array-size.yaml",
        "A space of design points and how it is sampled, for [`einsight sweep`](commands.md#einsight-sweep).",
    ),
    "measurement-plan": FileKind(
        "Measurement plan", (), "kernels/library/quick.yaml",
        "Kernels, shapes and tiles to time on a GPU, for [`einsight measure`](commands.md#einsight-measure).",
    ),
}  # fmt: skip
"""Name of the page -> the kind of file that it describes."""


def file_page(name: str) -> str:
    """The page of one kind of file."""
    kind = FILES[name]
    example = (ROOT / kind.example).read_text(encoding="utf-8").rstrip()
    parts = [f"# {kind.title}", kind.text]
    parts += [sections(resolve(place)) for place in kind.models] or [_measurement_plan()]
    parts += [_operations()] if name == "cascade" else []
    parts += ["## Example", f"`{kind.example}`:", f"```yaml\n{example}\n```"]
    return "\n\n".join(parts) + "\n"


def resolve(place: str) -> Any:
    """The value that `module:name` stands for."""
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)


def _operations() -> str:
    """The functions and reductions of Einsums, with the operation of a unit that each is charged as."""
    from einsum.body import MAPS, REDUCTIONS

    maps = [f"| `{name}` | {entry.kind} |" for name, entry in MAPS.items()]
    reductions = [f"| `{name}` | {entry.kind} |" for name, entry in REDUCTIONS.items()]
    tables = [["| map | operation |", "|---|---|", *maps], ["| reduction | operation |", "|---|---|", *reductions]]
    text = "Each is one operation of a unit at every point."
    return "\n\n".join(["## Maps and reductions", text, *("\n".join(table) for table in tables)])


def _measurement_plan() -> str:
    """A plan expands to cases, which are no pydantic models: their docstrings are the reference."""
    from kernels import plan
    from kernels.case import Case

    texts = [inspect.cleandoc(part.__doc__ or "") for part in (plan, Case)]
    return "\n\n".join([f"```text\n{texts[0]}\n```", "## A row", f"```text\n{texts[1]}\n```"])


def index_page() -> str:
    """The first page of the reference: the kinds of files, units and expressions."""
    rows = [f"| [{kind.title}]({name}.md) | {kind.text} |" for name, kind in FILES.items()]
    rows += [
        "| [Commands](commands.md) | Every command with its options. |",
        "| [JSON documents](documents.md) | What `--json` prints. |",
        "| [Libraries](libraries.md) | What there is by name. |",
    ]
    parts = [
        "# Reference",
        "These pages are made from the program that reads the files and the arguments, at every build.",
        "\n".join(["| page | |", "|---|---|", *rows]),
        "YAML is read as YAML 1.2: `1e9` is a number, `no` and `on` are text. Unknown and repeated keys are errors.",
        "## Expressions",
        _expressions(),
        "## Units",
        _units(),
    ]
    return "\n\n".join(parts) + "\n"


def _units() -> str:
    from einsum.units import UNITS

    rows = [
        f"| {dimension} | {' '.join(f'`{unit}`' for unit in units if unit)} |" for dimension, units in UNITS.items()
    ]
    return "\n".join(
        [
            "A quantity is a number and a unit, as `16 MiB`. Without a unit it is in SI units: bytes, seconds, joules.",
            "",
            "| dimension | units |",
            "|---|---|",
            *rows,
        ]
    )


def _expressions() -> str:
    from einsum.evaluation import FUNCTIONS

    return (
        "Where a table says *expression* there may stand a number, a quantity, or a formula over variables: `+ - * / "
        "// % **`, comparisons, `and`, `or`, `not`, `A if CONDITION else B`, text in quotes, and the functions "
        f"{', '.join(f'`{name}`' for name in sorted(FUNCTIONS))}. Expressions are parsed, never run as Python, and "
        "evaluate elementwise on arrays."
    )
