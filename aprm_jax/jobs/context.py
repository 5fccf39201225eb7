"""What every job needs of a config: domain, step builder, mesh, models, folders."""

from __future__ import annotations

import dataclasses
import functools
import logging
from pathlib import Path
from typing import Any

import jax
from transformers import PreTrainedTokenizerFast

from aprm_jax.config import Config, ConfigError, Job, jobs, stages
from aprm_jax.config.errors import UserError
from aprm_jax.config.roles import alike, name_of
from aprm_jax.data.jsonl import Limits
from aprm_jax.data.steps import RowFormat, StepBuilder
from aprm_jax.game.arena import Arena, Player
from aprm_jax.hf.builders import open_builder
from aprm_jax.hf.export import Origin
from aprm_jax.jobs import backbones
from aprm_jax.jobs.domains import open_domain
from aprm_jax.jobs.spent import Spent
from aprm_jax.models.decoder import Decoder, DecoderConfig
from aprm_jax.models.io import (
    SPEC_FILE,
    Kind,
    ModelSpec,
    load_model,
    read_object,
    save_model,
)
from aprm_jax.models.lora import LoraConfig
from aprm_jax.sampling.sampler import Sampler
from aprm_jax.tasks.protocols import Domain
from aprm_jax.training import hosts
from aprm_jax.training.loop import LoopConfig
from aprm_jax.training.mesh import (
    make_mesh,
    on_this_host,
    param_shardings,
    to_sample,
)

log = logging.getLogger("aprm_jax")


class JobError(UserError, RuntimeError):
    """A job cannot go on from what it was given; the message says what to change."""


@dataclasses.dataclass(frozen=True)
class Context:
    """A stage of a run.

    Attributes:
      config: with the stage's overrides applied.
      root: the workdir.
      stage: the stage's name and folder under `root`.
      role: whose tokenizer, architecture and sampler these are, of `backbones.ROLES`;
        they differ where the config names models of Hugging Face.
      instructed: whether the role is a solver that follows a prompt in words: see
        `solver`.
      spent: what the stage has asked for to learn from, up to now.
      left_out: what it does not learn of its data, by reason; `done.json` keeps it.
    """

    config: Config
    root: Path
    stage: str
    role: str = "solver"
    instructed: bool = False
    spent: Spent = dataclasses.field(default_factory=Spent, compare=False)
    left_out: dict[str, int] = dataclasses.field(default_factory=dict, compare=False)

    def of(self, role: str) -> Context:
        """The same stage for another role; this one where both are alike."""
        if not self.instructed and alike(self.config, self.role, role):
            return self
        other = dataclasses.replace(self, role=role, instructed=False)
        return self._others.setdefault(role, other)

    def solver(self, source: str) -> Context:
        """The same stage for the solver `source`, which may be the bare backbone.

        A model that was never trained on our rows would never close one: it is told in
        words, as the Generator is, and so is what learned by what it wrote then.
        """
        context = self.of("solver")
        instructed = source == backbones.BACKBONE or self._is_instructed(source)
        if not instructed or context.source is None:
            return context
        other = dataclasses.replace(context, role="solver", instructed=True)
        return context._others.setdefault("instructed", other)

    def _is_instructed(self, source: str) -> bool:
        """Whether a solver that was saved is told in words what to do."""
        for path in (self.root / source / "model", Path(source)):
            if (path / SPEC_FILE).is_file():
                return read_object(path / SPEC_FILE).get("prompt") is not None
        return False

    @functools.cached_property
    def _others(self) -> dict[str, Context]:
        return {}

    @functools.cached_property
    def source(self) -> backbones.Source | None:
        """The role's model of Hugging Face; None where it is made from scratch."""
        return backbones.open_source(self.config, self.role)

    @functools.cached_property
    def directory(self) -> Path:
        """The stage's folder."""
        path = self.root / self.stage
        path.mkdir(parents=True, exist_ok=True)
        return path

    @property
    def limits(self) -> Limits:
        """What reads of data files do about bad rows."""
        return {
            "quarantine_dir": self.root / "quarantine",
            "max_bad_share": self.config.domain.max_bad_share,
        }

    @functools.cached_property
    def domain(self) -> Domain:
        """The problems."""
        return open_domain(self.config, self.root)

    @functools.cached_property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        """The role's tokenizer."""
        return self.source.tokenizer if self.source else self.domain.tokenizer

    @functools.cached_property
    def builder(self) -> RowFormat:
        """How the role's model reads solutions."""
        kind: Kind = "generator" if self.role == "generator" else "solver"
        return open_builder(self.spec(kind), self.tokenizer)

    @property
    def writer(self) -> StepBuilder:
        """The same of a role that also writes: it prompts, and reads replies."""
        if isinstance(self.builder, StepBuilder):
            return self.builder
        name = name_of(self.config, self.role)
        raise ConfigError(
            f"{self.role}.backbone={name!r} is a PRM: it cannot write steps; name a "
            "language model"
        )

    @functools.cached_property
    def mesh(self) -> jax.sharding.Mesh:
        """The devices."""
        wanted = self.config.mesh
        alone = hosts.count() < jax.process_count()
        return make_mesh(on_this_host(wanted) if alone else wanted)

    @functools.cached_property
    def decoder_config(self) -> DecoderConfig:
        """The role's architecture."""
        if self.source:
            return self.source.decoder
        size = len(self.domain.tokenizer)
        return backbones.from_scratch(self.config, self.role, size)

    @functools.cached_property
    def decoder(self) -> Decoder:
        """The module of `decoder_config`."""
        return Decoder(self.decoder_config)

    def decoder_of(self, spec: ModelSpec) -> Decoder:
        """The module of a model that was saved, which may be of another size."""
        if spec.decoder.computes_as(self.decoder_config):
            return self.decoder
        remat = {"remat": self.config.model.remat}
        decoder = dataclasses.replace(spec.decoder, **remat)
        return Decoder(backbones.computed(self.config, decoder))

    @functools.cached_property
    def sampler(self) -> Sampler:
        """Draws steps; its prompts take every bucket."""
        c = self.config.builder
        return Sampler(
            self.decoder_config,
            stop_ids=self.writer.replies.stop_ids,
            pad_id=self.writer.pad_id,
            prompt_buckets=self.writer.buckets,
            max_new_tokens=c.max_new_tokens,
            batch_buckets=batch_buckets(c.sample_rows, self.writer.buckets[-1]),
            mesh=to_sample(self.mesh, self.config.mesh.sample_tensor),
            positions=self.writer.positions,
        )

    @functools.cached_property
    def arena(self) -> Arena:
        """Where games of this run are played."""
        g, r = self.of("generator"), self.of("prm")
        prm = None if r is g else Player(r.builder, r.decoder)
        return Arena(
            problems=self.domain,
            corruptor=self.domain,
            oracle=self.domain.oracle,
            kinds=self.domain.kinds,
            builder=g.writer,
            decoder=g.decoder,
            sampler=g.sampler,
            mesh=self.mesh,
            prm=prm,
        )

    def rows_of(self, spec: ModelSpec) -> RowFormat:
        """The rows that a model of this role was trained on.

        Those of an ORM or a PAV are whole solutions, whatever the config's window.
        """
        same = spec.window == self.builder.window
        return self.builder if same else open_builder(spec, self.tokenizer)

    def arena_of(self, prm: ModelSpec) -> Arena:
        """Where games against an R that starts from this model are played."""
        role = self.of("prm")
        rows, decoder = role.rows_of(prm), role.decoder_of(prm)
        if prm.kind != "prm" or (rows is role.builder and decoder is role.decoder):
            return self.arena
        return dataclasses.replace(self.arena, prm=Player(rows, decoder))

    def key(self, *path: int) -> Any:
        """A random key of this run: seed, then whatever tells draws apart."""
        key = jax.random.key(self.config.seed)
        for part in path:
            key = jax.random.fold_in(key, part)
        return jax.random.key_data(key)

    def place(self, tree: Any) -> Any:
        """A tree on the mesh, sharded by the table of `training.mesh`."""
        return hosts.place(tree, param_shardings(self.mesh, tree))

    def model_path(self, source: str, field: str) -> Path:
        """The folder of a stage's model, or `source` itself if it is a folder."""
        for path in (self.root / source / "model", Path(source)):
            if (path / "model.json").is_file():
                return path
        raise ConfigError(
            f"{field}={source!r}: neither a finished stage of {self.root} nor a folder "
            "with a model.json. Run that stage first, or give a model's folder."
        )

    def load(
        self, source: str, field: str, *kinds: Kind, any_size: bool = False
    ) -> tuple[Any, ModelSpec]:
        """Parameters on the mesh, and the spec, of a model of one of `kinds`.

        The source `backbone` is the role's model of Hugging Face, as the first kind.
        With `any_size` its architecture need not be the role's: see `decoder_of`.
        """
        if source == backbones.BACKBONE:
            ready = self.source is not None and self.source.is_prm
            kind: Kind = "prm" if ready and "prm" in kinds else kinds[0]
            return self._from_backbone(field, kind)
        path = self.model_path(source, field)
        params, spec, tokenizer = load_model(path)
        if spec.kind not in kinds:
            raise ConfigError(
                f"{field}={source!r} is a {spec.kind}; it must be {' or '.join(kinds)}"
            )
        if not any_size and not spec.decoder.computes_as(self.decoder_config):
            raise ConfigError(
                f"{field}={source!r} has another architecture: {spec.decoder} there, "
                f"{self.decoder_config} here"
            )
        if tokenizer.get_vocab() != self.tokenizer.get_vocab():
            raise ConfigError(f"{field}={source!r} has another tokenizer")
        return self.place(params), spec

    def _from_backbone(self, field: str, kind: Kind) -> tuple[Any, ModelSpec]:
        if self.source is None:
            raise ConfigError(
                f"{field}={backbones.BACKBONE!r} needs a model of Hugging Face for "
                "that role: set solver.backbone, generator.backbone or prm.backbone"
            )
        if self.source.is_prm and kind != "prm":
            raise ConfigError(
                f"{self.role}.backbone={name_of(self.config, self.role)!r} "
                f"is a PRM ({self.source.layout or 'an export of ours'}); {field} "
                "needs a language model"
            )
        params = backbones.load(self.source, self.mesh, self.key(4), kind)
        return params, self.spec(kind, self.source.head if kind == "prm" else None)

    def spec(self, kind: Kind = "solver", head: str | None = None) -> ModelSpec:
        """What a model of this role and stage is."""
        c = self.config.builder
        record = self.source.record if self.source else None
        window = c.window or None
        if record is not None and record.spec.kind == "prm":
            window = record.spec.window  # its rows are as it was trained on them
        return ModelSpec(
            kind=kind,
            decoder=self.decoder_config,
            head=head,
            window=window,
            buckets=c.buckets,
            domain=self.domain.name,
            line_stride=c.line_stride,
            max_new_tokens=c.max_new_tokens,
            family=self.source.family if self.source else "llama",
            layout=self.source.layout if self.source else None,
            prompt=getattr(self.config.prompt, self.role) if self.prompted else None,
            extra={"stage": self.stage, "seed": self.config.seed}
            | (self.source.origin.extra() if self.source else {}),
        )

    @property
    def prompted(self) -> bool:
        """Whether the role is told in words what to do."""
        return self.instructed or (self.role == "generator" and self.source is not None)

    def spec_of(
        self,
        params: Any,
        kind: Kind = "solver",
        head: str | None = None,
        on: str = backbones.BACKBONE,
    ) -> ModelSpec:
        """What parameters of this stage are; of an adapter, beside what. See `save`."""
        spec = self.spec(kind, head)
        if "lora" not in params:
            return spec
        adapters = LoraConfig.of(self.config.lora)
        assert adapters is not None  # else there would be no such tree
        origin, fields = Origin.of(spec), dataclasses.asdict(adapters)
        if on != backbones.BACKBONE:
            origin = dataclasses.replace(origin, base_model="")
        adapted = dataclasses.replace(origin, lora=fields)
        return dataclasses.replace(spec, extra=spec.extra | adapted.extra())

    def save(
        self,
        params: Any,
        kind: Kind,
        head: str | None = None,
        folder: str = "model",
        on: str = backbones.BACKBONE,
        **reads: Any,
    ) -> Path:
        """Writes a model of the stage and returns its folder.

        Args:
          params: a model, or an adapter with its heads.
          kind: what it is.
          head: of a PRM.
          folder: in the stage's own.
          on: what an adapter was trained on; it names the base of Hugging Face only
            where that was it.
          **reads: `aggregation` and `values` of a PRM, see `ModelSpec`.
        """
        path = self.directory / folder
        spec = dataclasses.replace(self.spec_of(params, kind, head, on), **reads)
        whole = hosts.fetch(params)
        if hosts.leader():
            save_model(path, whole, spec, self.tokenizer)
        return path

    def loop_config(self, num_steps: int) -> LoopConfig:
        """How a training loop of this run logs, saves and gives up."""
        c = self.config.checkpoint
        return LoopConfig(
            num_steps=num_steps,
            log_every=self.config.log_every,
            checkpoint_every=c.every,
            keep_last=c.keep_last,
            max_nonfinite=c.max_nonfinite,
            restore_step=None if c.step < 0 else c.step,
            tensorboard=self.config.metrics.tensorboard,
            wandb=self.config.metrics.wandb or None,
            shown=self._job.shown if self._job else (),
        )

    @property
    def _job(self) -> Job | None:
        """What the stage runs; None for a stage that the config does not list."""
        name = dict(stages(self.config)).get(self.stage)
        return jobs()[name] if name else None


def batch_buckets(most: int, longest: int) -> tuple[int, ...]:
    """Numbers of sampled rows to compile for, of `builder.sample_rows` at most.

    Prefill's attention grows with the square of the length: fewer long rows.
    """
    sizes = (16, 64, 256) if longest <= 256 else (16, 64)
    return (*(n for n in sizes if n < most), most) if most else sizes
