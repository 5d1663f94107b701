"""What the files of the sentence-transformers library say: how the vectors of a text's tokens become one vector.

``modules.json`` lists what runs in turn: the encoder, a pooling, layers behind it. Each has a folder with a
``config.json``; ``sentence_bert_config.json`` says how many tokens a text may have. Source: sentence-transformers 5.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Literal, get_args

from ..errors import InvalidProgramError, UnsupportedProgramError
from ..format.safetensors import json_object, json_value

Pooling = Literal["mean", "cls", "max", "mean_sqrt_len", "last"]
POOLINGS: tuple[Pooling, ...] = get_args(Pooling)
MODULES, LENGTH = "modules.json", "sentence_bert_config.json"
Read = Callable[[str], bytes | None]  # a file by its name in the folder; None when there is none

# In the order in which the library puts several side by side.
_FLAGS: dict[str, Pooling] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len",
    "pooling_mode_lasttoken": "last",
}
_MODES: dict[str, Pooling] = {
    "cls": "cls",
    "max": "max",
    "mean": "mean",
    "mean_sqrt_len_tokens": "mean_sqrt_len",
    "lasttoken": "last",
}
_ACTIVATIONS = {"Tanh": "tanh", "Identity": "identity"}


@dataclass(frozen=True)
class Dense:
    """A linear layer behind the pooling, whose weights are in ``folder``."""

    folder: str
    inputs: int
    outputs: int
    bias: bool
    activation: str  # "tanh" or "identity"


@dataclass(frozen=True)
class SentenceSettings:
    """How the vectors of tokens become one: ``poolings`` side by side, ``dense`` layers, and length one at last.

    ``max_tokens``: of a text, with the tokens around it; None where the files do not say. ``lowercase``: texts are put
    into lower case before anything else.
    """

    poolings: tuple[Pooling, ...] = ("mean",)
    dense: tuple[Dense, ...] = ()
    normalize: bool = False
    max_tokens: int | None = None
    lowercase: bool = False

    def files(self) -> dict[str, bytes]:
        """The same as files: what a program carries along. Weights of layers are not among them."""
        flags = {flag: pooling in self.poolings for flag, pooling in _FLAGS.items()}
        configs: dict[str, Any] = {"1_Pooling": flags}
        for index, dense in enumerate(self.dense, 2):
            activation = next(name for name, ours in _ACTIVATIONS.items() if ours == dense.activation)
            configs[f"{index}_Dense"] = {
                "in_features": dense.inputs,
                "out_features": dense.outputs,
                "bias": dense.bias,
                "activation_function": activation,
            }
        paths = ["", *configs, *([f"{len(configs) + 1}_Normalize"] if self.normalize else [])]
        kinds = [path.partition("_")[2] or "Transformer" for path in paths]
        modules = [
            {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for i, (path, kind) in enumerate(zip(paths, kinds, strict=True))
        ]
        length = {"max_seq_length": self.max_tokens, "do_lower_case": self.lowercase}
        written = {MODULES: modules, LENGTH: length} | {f"{path}/config.json": c for path, c in configs.items()}
        return {name: json.dumps(content).encode() for name, content in written.items()}


def read_settings(read: Read) -> SentenceSettings | None:
    """The settings of a model; None where there is no ``modules.json``.

    InvalidProgramError for a file that is missing or unreadable; UnsupportedProgramError, which names all of them, for
    modules and poolings that are not here.
    """
    modules = _modules(read)
    if modules is None:
        return None
    found: dict[str, list[dict[str, Any]]] = {"Transformer": [], "Pooling": [], "Dense": [], "Normalize": []}
    kinds = [str(module.get("type", "")).rpartition(".")[2] for module in modules]
    if unknown := sorted({kind for kind in kinds if kind not in found}):
        raise UnsupportedProgramError(
            f"{MODULES} has {', '.join(unknown)}, which is not here: use a model of {', '.join(found)}."
        )
    wanted = ["Transformer", "Pooling", *["Dense"] * kinds.count("Dense"), *["Normalize"] * kinds.count("Normalize")]
    if kinds != wanted or kinds.count("Normalize") > 1:
        raise UnsupportedProgramError(
            f"{MODULES} has {', '.join(kinds) or 'nothing'} in this order, which is not here: use a model of one "
            "Transformer, one Pooling, then layers of Dense and at most one Normalize."
        )
    for kind, module in zip(kinds, modules, strict=True):
        found[kind].append(module)
    poolings = _poolings(_config(read, found["Pooling"][0]))
    dense = tuple(_dense(read, module) for module in found["Dense"])
    folder = str(found["Transformer"][0].get("path") or "")
    length = _read(read, f"{folder}/{LENGTH}" if folder else LENGTH)
    stated = _object(length, LENGTH) if length is not None else {}
    most = stated.get("max_seq_length")
    if most is not None and (type(most) is not int or most < 1):
        raise InvalidProgramError(
            f"{LENGTH} has {most!r} as 'max_seq_length', which is no positive integer: correct it."
        )
    return SentenceSettings(poolings, dense, bool(found["Normalize"]), most, bool(stated.get("do_lower_case")))


def _object(data: bytes, name: str) -> dict[str, Any]:
    try:
        return json_object(data)
    except ValueError as error:
        raise InvalidProgramError(f"{name} is not readable ({error}): correct it, or download it again.") from error


def _modules(read: Read) -> list[dict[str, Any]] | None:
    data = _read(read, MODULES)
    if data is None:
        return None
    try:
        modules = json_value(data)
    except ValueError as error:
        raise InvalidProgramError(f"{MODULES} is not readable ({error}): correct it, or download it again.") from error
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
        raise InvalidProgramError(f"{MODULES} does not list modules: correct it, or download it again.")
    return modules


def _poolings(config: dict[str, Any]) -> tuple[Pooling, ...]:
    mode = config.get("pooling_mode")
    if mode is not None:  # as newer versions write it
        named = mode if isinstance(mode, list | tuple) else str(mode).split("+")
        unknown = sorted({str(name) for name in named} - _MODES.keys())
        poolings = tuple(_MODES[name] for name in named if name in _MODES)
    else:
        on = [key for key, value in config.items() if key.startswith("pooling_mode_") and value]
        unknown = sorted(set(on) - _FLAGS.keys())
        poolings = tuple(pooling for flag, pooling in _FLAGS.items() if flag in on)
    if unknown:
        raise UnsupportedProgramError(
            f"The pooling {', '.join(unknown)} is not here: use a model that pools by {', '.join(POOLINGS)}."
        )
    if not poolings:
        raise InvalidProgramError("The pooling's config.json names no pooling: correct it.")
    return poolings


def _dense(read: Read, module: dict[str, Any]) -> Dense:
    config, folder = _config(read, module), str(module.get("path"))
    sizes = [config.get(key) for key in ("in_features", "out_features")]
    if any(type(size) is not int or size < 1 for size in sizes):
        raise InvalidProgramError(f"{folder}/config.json has {sizes} as its features, and needs two sizes: correct it.")
    activation = str(config.get("activation_function", "torch.nn.modules.activation.Tanh")).rpartition(".")[2]
    if activation not in _ACTIVATIONS:
        raise UnsupportedProgramError(
            f"The activation {activation!r} of {folder} is not here: use a model with {' or '.join(_ACTIVATIONS)}."
        )
    inputs, outputs = (int(size) for size in sizes if size is not None)
    return Dense(folder, inputs, outputs, bool(config.get("bias", True)), _ACTIVATIONS[activation])


def _config(read: Read, module: dict[str, Any]) -> dict[str, Any]:
    name = f"{module.get('path')}/config.json"
    data = _read(read, name)
    if data is None:
        raise InvalidProgramError(f"The folder has no file {name!r}, which its {MODULES} names: download it.")
    return _object(data, name)


def _read(read: Read, name: str) -> bytes | None:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise InvalidProgramError(f"{MODULES} names {name!r}, which is outside of its folder: correct it.")
    return read(name)
