"""Opens the verifier that a name means, for commands and configs.

runs/mine, runs/mine/aprm, FOLDER, OWNER/NAME    a PRM: see `hf.locate.load_any`
likelihood:NAME                                  of a solver, named likewise
scores:FILE                                      see `verifiers.score_file`
oracle:NAME                                      one of `ORACLES`
http://…, https://…, pooling:http://…            a server: see `config.addresses`
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from aprm_jax.config.addresses import is_address, read_address
from aprm_jax.config.errors import UserError
from aprm_jax.files import fingerprint
from aprm_jax.hf import hub, peft
from aprm_jax.hf.builders import open_builder
from aprm_jax.hf.locate import load_any
from aprm_jax.models.decoder import Decoder
from aprm_jax.models.io import SPEC_FILE, Kind, ModelSpec
from aprm_jax.oracle.embedded.arithmetic import ArithmeticOracle
from aprm_jax.oracle.steps.calculator import CalculatorOracle
from aprm_jax.oracle.steps.text import TextOracle
from aprm_jax.tasks.protocols import StepOracle
from aprm_jax.verifiers.combined import CombinedVerifier
from aprm_jax.verifiers.models import (
    ModelVerifier,
    likelihood_verifier,
    prm_verifier,
)
from aprm_jax.verifiers.protocol import Verifier
from aprm_jax.verifiers.score_file import ScoreFileVerifier
from aprm_jax.verifiers.served import open_served
from aprm_jax.verifiers.stated import OracleVerifier

# Batches are padded to one of these numbers of rows and to this number of steps, so
# that few programs are compiled whatever arrives. Steps cost next to nothing.
BATCH_SIZES = (1, 8, 64)
ROWS: dict[str, Any] = {"batch_sizes": BATCH_SIZES, "max_steps": 64}
ORACLES: dict[str, Callable[[], StepOracle]] = {
    "arithmetic": ArithmeticOracle,
    "arithmetic10": lambda: ArithmeticOracle(10),
    "calculator": CalculatorOracle,
    "text": TextOracle,
}
_SCHEMES = ("likelihood", "scores", "oracle")
_OF_WHAT = {
    "likelihood": "SOLVER, a solver's run, stage, folder or OWNER/NAME on the hub",
    "scores": "FILE, which has scores of solutions",
}
ADDRESS = "address"  # in place of a scheme: the name is that of a server


class UnknownVerifierError(UserError, ValueError):
    """A name that means no verifier; the message has those that do."""


def open_verifier(
    names: Sequence[str],
    how: str = "mean",
    *,
    oracle: Callable[[], StepOracle] | None = None,
    place: Callable[[Any], Any] = lambda params: params,
    served: Callable[[str], Verifier] = open_served,
    load: Callable[[str, Kind], tuple[Any, ModelSpec, Any]] = load_any,
) -> Verifier:
    """The verifier of a name, or what those of several names say together.

    Args:
      names: one or more, see the module.
      how: several are combined, of `combined.COMBINATIONS`.
      oracle: what the name `oracle` means; None where it means none.
      place: puts a model's parameters where they belong.
      served: opens the verifier at an address.
      load: loads a model, as `load_any`.

    Raises:
      UnknownVerifierError: no such verifier.
      ConfigError: an address that is none, or whose key is not there.
      ModelFileError, DataError: there is no such model or file; likewise the other
        errors of `load_any`.
    """
    found = [_open(name, oracle, place, served, load) for name in names]
    return found[0] if len(found) == 1 else CombinedVerifier(found, how)


def verifier_of(
    params: Any, spec: ModelSpec, tokenizer: Any, **rows: Any
) -> ModelVerifier:
    """The verifier that a loaded PRM is, or a solver by its likelihood.

    `rows` are options of `prm_verifier`, in place of `ROWS`.
    """
    builder, decoder = open_builder(spec, tokenizer), Decoder(spec.decoder)
    rows = ROWS | rows
    if spec.head is None:
        return likelihood_verifier(decoder, params, builder, **rows)
    rows |= {"aggregation": spec.aggregation, "values": spec.values}
    return prm_verifier(decoder, spec.head, params, builder, **rows)


def fingerprint_of(name: str) -> str:
    """What changes where the verifier of a name does; of a server, the name alone.

    Raises:
      ModelFileError, DataError: see `open_verifier`.
    """
    scheme, path = split_name(name)
    if scheme in ("oracle", ADDRESS):
        return name
    if scheme == "scores":
        found = [str(fingerprint(path)["sha256"])] if Path(path).is_file() else []
    else:
        folders = [hub.find(path)]
        if (base := peft.base_of(folders[0])) is not None:
            folders.append(hub.find(*base))
        files = (file for folder in folders for file in _described(folder))
        found = [part for file in files for part in file]
    return hashlib.sha256("\n".join([scheme, *found]).encode()).hexdigest()


def _described(folder: Path) -> list[tuple[str, str]]:
    """Each of a model's files and its checksum.

    Models of ours have a description with checksums of all that they consist of.
    """
    if folder.is_file():  # a GGUF file
        return [(folder.name, str(fingerprint(folder)["sha256"]))]
    ours = any(folder.rglob(SPEC_FILE))
    return [
        (path.relative_to(folder).as_posix(), str(fingerprint(path)["sha256"]))
        for pattern in ([f"**/{SPEC_FILE}"] if ours else ["*.json", "*.safetensors"])
        for path in sorted(folder.glob(pattern))
    ]


def split_name(name: str) -> tuple[str, str]:
    """The scheme of a name, "" for a PRM's, and what follows it."""
    if is_address(name):
        return ADDRESS, name
    scheme, colon, rest = name.partition(":")
    if name == "oracle" or (colon and scheme in _SCHEMES):
        return scheme, rest
    return "", name


def check_name(name: str, oracle: bool) -> None:
    """What is seen of a name without a look at any file.

    Args:
      name: of a verifier.
      oracle: whether `oracle` alone means one.

    Raises:
      UnknownVerifierError: it means no verifier.
      ConfigError: it is an address that is none.
    """
    scheme, rest = split_name(name)
    if scheme == ADDRESS:
        read_address(name, "verifier")
    elif scheme == "oracle":
        if rest not in ORACLES and (rest or not oracle):
            known = ", ".join(f"oracle:{known}" for known in ORACLES)
            raise UnknownVerifierError(f"{name!r}: no such oracle; there are {known}")
    elif not rest:
        raise UnknownVerifierError(
            f"{name!r} names no verifier: a PRM (a run, a stage, a model's folder, an "
            "export, OWNER/NAME on the hub), likelihood:SOLVER, scores:FILE, "
            "oracle:NAME or a server's address"
        )


def _open(
    name: str,
    oracle: Callable[[], StepOracle] | None,
    place: Callable[[Any], Any],
    served: Callable[[str], Verifier],
    load: Callable[[str, Kind], tuple[Any, ModelSpec, Any]],
) -> Verifier:
    check_name(name, oracle is not None)
    if name in _OF_WHAT and not Path(name).exists():
        raise UnknownVerifierError(
            f"{name!r} does not say whose: name {name}:{_OF_WHAT[name]}"
        )
    scheme, rest = split_name(name)
    if scheme == ADDRESS:
        return served(name)
    if scheme == "oracle":
        made: Any = ORACLES.get(rest, oracle)
        return OracleVerifier(made())
    if scheme == "scores":
        return ScoreFileVerifier.read(rest)
    params, spec, tokenizer = load(rest, "solver" if scheme else "prm")
    return verifier_of(place(params), spec, tokenizer)
