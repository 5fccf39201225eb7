"""Exports a stage's model, or a model's folder, for Hugging Face's libraries."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aprm_jax.config import ConfigError, default_config, flat, jobs
from aprm_jax.evals.records import RESULTS, by_name, ends_by_name, read_results
from aprm_jax.hf import prm_layouts, tables
from aprm_jax.hf.adapters import AdapterMismatchError
from aprm_jax.hf.card import is_repository
from aprm_jax.hf.export import (
    Origin,
    Provenance,
    check_repository,
    check_target,
    export_model,
    push,
    resolve_format,
)
from aprm_jax.hf.load import load_backbone, read_architecture
from aprm_jax.jobs import backbones, of_run
from aprm_jax.jobs.context import Context, log
from aprm_jax.models.io import SPEC_FILE, load_model
from aprm_jax.training.workdir import DONE, check_done, done_info

MEGABYTE = 1_000_000  # bytes, as transformers counts them


def check(context: Context, earlier: Mapping[str, str]) -> None:
    """What is cheap to check of an export.

    Raises:
      ConfigError: no model is named.
      ExportError: the target is somebody else's folder, or no repository's name.
    """
    c = context.config.export
    if not c.model:
        raise ConfigError(
            f"stage {context.stage!r}: export.model is empty: name a stage, such "
            "as 'aprm' or 'aprm/generator', or a model's folder"
        )
    if c.directory:
        check_target(Path(c.directory))
    if c.push_to_hub:
        check_repository(c.push_to_hub)


def run(context: Context) -> dict[str, Any]:
    """Writes the folder, uploads it where asked for, and says where it is."""
    c = context.config.export
    source, adapter = c.model, context.root / c.model / "adapter"
    if c.format == "peft" and (adapter / SPEC_FILE).is_file():
        source = str(adapter)
    path = context.model_path(source, "export.model")
    params, spec, tokenizer = load_model(path)
    format_ = resolve_format(spec, c.format)
    target = context.root / context.stage / f"{_name(c.model)}-{format_}"
    if c.directory:
        target = Path(c.directory)
    if "lora" in params and "backbone" not in params and format_ != "peft":
        params = {**params, "backbone": _base(context, Origin.of(spec), spec.decoder)}
    export_model(
        target,
        params,
        spec,
        tokenizer,
        format_=c.format,
        max_shard_bytes=c.max_shard_size * MEGABYTE,
        provenance=provenance(path),
        name=c.push_to_hub,
    )
    log.info("%s: %s as %s in %s", context.stage, c.model, format_, target)
    results: dict[str, Any] = {"directory": str(target), "format": format_}
    results["elsewhere"] = [target]
    if c.push_to_hub:
        results["address"] = push(target, c.push_to_hub, private=c.private)
        log.info("%s: uploaded: %s", context.stage, results["address"])
    return results


def provenance(model: Path) -> Provenance:
    """What the run that a model's folder lies in says of itself."""
    root = next((p for p in model.absolute().parents if _is_run(p)), None)
    if root is None:
        return Provenance()
    config = of_run.get_config(str(root))
    for stage in root.iterdir():
        if (stage / DONE).is_file() and done_info(stage).get("job") == "report":
            check_done(stage)
    domain, train = config.domain.name, config.domain.train
    kind, _, name = train.rpartition(":")
    on_hub = kind.endswith("datasets") and is_repository(name)
    data = f"{domain} {name if on_hub else Path(train).name}".strip()
    parts = model.absolute().relative_to(root).parts
    of = "/".join(part for part in parts if part not in ("model", "adapter"))
    return Provenance(
        data=data,
        datasets=(name,) if on_hub else (),
        config=_changed(config.to_dict()),
        metrics=_metrics(root / RESULTS, of),
    )


def _base(context: Context, origin: Origin, decoder: Any) -> Any:
    """The backbone that an adapter was trained beside."""
    name = context.config.export.model
    if not origin.base_model:
        raise ConfigError(
            f"export.model={name!r} is an adapter that does not say what its base is"
        )
    folder = backbones.find(origin.base_model, "export.model's base")
    layout = prm_layouts.detect(folder, origin.base_model)
    found, _ = read_architecture(folder)
    rows = origin.vocab_rows or decoder.vocab_size
    needed = dataclasses.replace(decoder, vocab_size=rows)
    have, need = (tables.parameter_shapes(config) for config in (found, needed))
    for path, shape in need.items():
        if have.get(path) != shape:
            raise AdapterMismatchError(
                f"{folder}: not the base that export.model={name!r} was trained on: "
                f"{path} is {have.get(path)}, not {shape}"
            )
    base = load_backbone(
        folder,
        context.mesh,
        param_dtype=decoder.param_dtype,
        vocab_size=decoder.vocab_size,
        ignore=prm_layouts.LAYOUTS[layout].ignored if layout else (),
    )
    return base.params


def _name(source: str) -> str:
    """As "aprm-generator": of a folder the last parts that say what it is."""
    parts = [part for part in Path(source).parts if part not in ("/", "model")]
    return "-".join(parts[-2:])


def _is_run(folder: Path) -> bool:
    return (folder / "config.json").is_file() and (
        folder / "fingerprint.json"
    ).is_file()


def _changed(config: Mapping[str, Any]) -> dict[str, Any]:
    """Fields that differ from the default; of local paths the last part alone."""
    default = flat(default_config())
    # Nor what some other command once asked of the run.
    asked = [f"{job.group}." for job in jobs().values() if not job.needs]
    skipped = ("job", "compilation_cache", "metrics.", "checkpoint.", *asked)
    changed = {}
    config = dict(config)
    changes = config.get("overrides", {})
    config["overrides"] = {k: v for k, v in changes.items() if v}
    for name, value in flat(config).items():
        before = default.get(name)
        before = list(before) if isinstance(before, tuple) else before
        value = list(value) if isinstance(value, tuple) else value
        if value == before or name.startswith(skipped):
            continue
        several = isinstance(value, list)
        found = [_bare(item) for item in (value if several else [value])]
        changed[name] = found if several else found[0]
    return changed


def _bare(value: Any) -> Any:
    """A local path, `gsm8k:/data/test.jsonl` too, without its folders."""
    if not isinstance(value, str):
        return value
    return re.sub(r"(^|:)[/~][^:?]*/", r"\1", value)


def _metrics(path: Path, name: str) -> dict[str, float]:
    """Numbers about a stage's model, or "STAGE/OTHER"; all of them where no name is."""
    if not path.exists():
        return {}
    remedy = "Make it anew with --config.job=report, or delete it."
    records, more = read_results(path, remedy)
    training = more.get("training", {})
    if not name:
        return by_name(records) | ends_by_name(training)
    stage, _, other = name.partition("/")
    ends = training.get(stage, {})
    if other:  # what is measured of a stage is so of its main model
        ends = {k: value for k, value in ends.items() if k.startswith(f"{other}/")}
    mine = by_name(record for record in records if record.verifier == name)
    return mine | ends_by_name({stage: ends})
