"""Checkpoints in the real format with one thing changed: tensors, configuration files, the tokenizer."""

import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from cases import Case, Outcome, call, empty_folder, tiny
from safetensors.torch import load_file, save_file

import p2p_bench as p2p

PARTS = {
    "unet": "unet/diffusion_pytorch_model.safetensors",
    "vae": "vae/diffusion_pytorch_model.safetensors",
    "text_encoder": "text_encoder/model.safetensors",
}
CONFIGS = {
    "model_index.json": ("_class_name",),
    "unet/config.json": ("sample_size", "in_channels", "block_out_channels", "cross_attention_dim"),
    "vae/config.json": ("block_out_channels", "latent_channels"),
    "text_encoder/config.json": ("hidden_size", "vocab_size", "max_position_embeddings"),
    "scheduler/scheduler_config.json": (
        "prediction_type",
        "num_train_timesteps",
        "beta_start",
        "beta_schedule",
    ),
}
JUNK: tuple[Any, ...] = ("x", [], {}, -1, 0, 1e308, [None], {"a": 1}, True)
Change = Callable[[Path], None]


def cases(rng: random.Random, count: int) -> Iterator[Case]:
    """About `count` cases; the valid ones are rewritten in ways that change nothing."""
    makers = (_tensors, _tensors, _good, _config, _file, _good, _tokenizer)
    yield from (makers[index % len(makers)](rng) for index in range(count))


def _good(rng: random.Random) -> Case:
    """The same checkpoint in another form."""
    kinds: dict[str, Change] = {
        "as it is": lambda folder: None,
        "other file order": lambda folder: _rewrite(folder, "unet", lambda t: dict(reversed(t.items()))),
        "vae in float64": lambda folder: _rewrite(
            folder, "vae", lambda t: {k: v.double() for k, v in t.items()}
        ),
        "u-net in half precision": lambda folder: _rewrite(
            folder, "unet", lambda t: {k: v.half() for k, v in t.items()}
        ),
        "extra file": lambda folder: _write(folder / "unet" / "notes.txt", b"x"),
        "sharded u-net": _shard,
        "unknown key in a configuration": lambda folder: _edit(folder / "vae/config.json", "my_note", "x"),
        "position ids of older releases": lambda folder: _rewrite(
            folder, "text_encoder", lambda t: {**t, _position_ids(t): torch.arange(16)[None]}
        ),
    }
    kind = rng.choice(list(kinds))
    return _case(f"good: {kind}", kinds[kind], True, kind, ())


def _position_ids(tensors: dict[str, torch.Tensor]) -> str:
    stem = next(key for key in tensors if key.endswith("position_embedding.weight"))
    return stem.replace("position_embedding.weight", "position_ids")


def _tensors(rng: random.Random) -> Case:
    """Some tensors of a part missing, too many, of another shape, or of no use."""
    part = rng.choice(list(PARTS))
    keys = _keys(part)
    chosen = rng.sample(keys, rng.choice([1, 1, 2, 5]))
    matrices = [key for key in keys if key.endswith("weight") and "norm" not in key]
    kinds: dict[str, Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]] = {
        "missing": lambda t: {k: v for k, v in t.items() if k not in chosen},
        "renamed": lambda t: {f"{k}_x" if k in chosen else k: v for k, v in t.items()},
        "unexpected": lambda t: {**t, **{f"extra.{k}": t[k].clone() for k in chosen}},
        "of another shape": lambda t: {k: torch.cat([v, v]) if k in chosen else v for k, v in t.items()},
        "not finite": lambda t: {k: v + torch.nan if k in chosen else v for k, v in t.items()},
        "infinite at one place": lambda t: {k: _spoilt(v) if k in chosen else v for k, v in t.items()},
        "all zero": lambda t: {k: v * 0 if k in [*chosen, matrices[0]] else v for k, v in t.items()},
        "all gone": lambda t: {},
    }
    kind = rng.choice(list(kinds))
    names = (part, part.replace("_", " "), "U-Net", "VAE", "text encoder", *chosen)
    return _case(
        f"tensors {kind}",
        lambda folder: _rewrite(folder, part, kinds[kind]),
        False,
        f"{part} {chosen}",
        names,
    )


def _spoilt(tensor: torch.Tensor) -> torch.Tensor:
    spoilt = tensor.clone()
    spoilt.view(-1)[0] = torch.inf
    return spoilt


def _config(rng: random.Random) -> Case:
    """A configuration file that holds something else."""
    file = rng.choice(list(CONFIGS))
    key = rng.choice(CONFIGS[file])
    value = rng.choice([one for one in JUNK if not (key == "beta_start" and one == 0)])
    return _case(
        f"{file}: wrong {key}",
        lambda folder: _edit(folder / file, key, value),
        False,
        f"{value!r}",
        (key, file, "tiny"),
    )


def _file(rng: random.Random) -> Case:
    """A file that is gone, cut short, a folder, or of another kind."""
    file = rng.choice([*PARTS.values(), *CONFIGS, "tokenizer/vocab.json", "tokenizer/merges.txt"])
    length = rng.choice([7, 100])
    kinds: dict[str, Change] = {
        "gone": lambda folder: (folder / file).unlink(),
        "empty": lambda folder: _write(folder / file, b""),
        "cut short": lambda folder: _write(folder / file, (folder / file).read_bytes()[:length]),
        "a folder": lambda folder: _replace(folder / file, Path.mkdir),
        "not text": lambda folder: _write(folder / file, b"\xff\xfe\x00" * 50),
        "a list": lambda folder: _write(folder / file, b"[1, 2]"),
        "null": lambda folder: _write(folder / file, b"null"),
        "a broken link": lambda folder: _replace(folder / file, lambda path: path.symlink_to("nowhere")),
    }
    kind = rng.choice(list(kinds))

    def change(folder: Path) -> None:
        if file.startswith("tokenizer/"):
            _by_merges(folder)
        kinds[kind](folder)

    return _case(f"file {kind}", change, False, file, (Path(file).name, Path(file).parent.name))


def _by_merges(folder: Path) -> None:
    """Leaves the tokenizer its vocabulary and merges alone; a `tokenizer.json` would be read instead."""
    (folder / "tokenizer" / "tokenizer.json").unlink(missing_ok=True)


def _write(file: Path, content: bytes) -> None:
    file.write_bytes(content)


def _replace(file: Path, make: Callable[[Path], None]) -> None:
    file.unlink()
    make(file)


def _tokenizer(rng: random.Random) -> Case:
    """A vocabulary that is not the text encoder's."""
    kinds: dict[str, Callable[[dict[str, int]], Any]] = {
        "ids beyond the embedding": lambda vocab: {token: index + 1000 for token, index in vocab.items()},
        "one token too many": lambda vocab: {**vocab, "zebra</w>": len(vocab)},
        "ids as text": lambda vocab: {token: str(index) for token, index in vocab.items()},
        "a list": list,
        "empty": lambda vocab: {},
        "ids below 0": lambda vocab: {token: -index for token, index in vocab.items()},
    }
    kind = rng.choice(list(kinds))

    def change(folder: Path) -> None:
        _by_merges(folder)
        file = folder / "tokenizer" / "vocab.json"
        file.write_text(json.dumps(kinds[kind](json.loads(file.read_text()))))

    return _case(f"vocabulary: {kind}", change, False, kind, ("vocab", "token"))


def _case(kind: str, change: Change, valid: bool, shown: str, names: tuple[str, ...]) -> Case:
    return Case("checkpoints", kind, valid, lambda: _run(change), shown, names)


def _run(change: Change) -> Outcome:
    """Loads the changed checkpoint and makes one edit with it."""
    with empty_folder() as folder:
        path = folder / "tiny"
        shutil.copytree(tiny().tiny_checkpoint().path, path, symlinks=True)
        change(path)
        return call(lambda: _edited(path))


def _edited(path: Path) -> str | None:
    model = p2p.load_model(path, dtype=torch.float64)
    result = p2p.edit(model, "a red cat", "a blue cat", p2p.Replace(), steps=2, record=False)
    off = float((result.latents - _expected()).abs().max())
    return f"latents are off by {off:.1e}" if off > 0.05 else None


_LATENTS: list[torch.Tensor] = []


def _expected() -> torch.Tensor:
    """Latents of the unchanged checkpoint; half precision moves them by less than 0.05."""
    if not _LATENTS:
        result = p2p.edit(
            tiny().tiny_model(), "a red cat", "a blue cat", p2p.Replace(), steps=2, record=False
        )
        _LATENTS.append(result.latents)
    return _LATENTS[0]


def _keys(part: str) -> list[str]:
    return sorted(load_file(Path(tiny().tiny_checkpoint().path) / PARTS[part]))


def _rewrite(
    folder: Path, part: str, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]
) -> None:
    file = folder / PARTS[part]
    changed = change(load_file(file))
    save_file({key: value.contiguous() for key, value in changed.items()}, file, {"format": "pt"})


def _shard(folder: Path) -> None:
    file = folder / PARTS["unet"]
    tensors = load_file(file)
    keys = sorted(tensors)
    halves = keys[::2], keys[1::2]
    where: dict[str, str] = {}
    for number, half in enumerate(halves, 1):
        name = f"diffusion_pytorch_model-{number:05d}-of-00002.safetensors"
        save_file({key: tensors[key] for key in half}, file.with_name(name), {"format": "pt"})
        where |= dict.fromkeys(half, name)
    file.unlink()
    index = {"metadata": {"total_size": 1}, "weight_map": where}
    file.with_name("diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))


def _edit(file: Path, key: str, value: Any) -> None:
    config = json.loads(file.read_text())
    file.write_text(json.dumps({**config, key: value}))
