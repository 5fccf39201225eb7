"""What a stage may not learn: solutions of questions that the domain evaluates on."""

from __future__ import annotations

from aprm_jax.jobs.context import Context, log


def note_held_out(
    context: Context, field: str, count: int, what: str = "solutions"
) -> None:
    """Keeps how much of a stage's data is left out, and says so in the log.

    Args:
      context: of the stage that would have learned them.
      field: that names the data.
      count: how many are of such questions, see `Domain.is_held_out`.
      what: is counted.
    """
    if count:
        context.left_out[f"held_out_{what}"] = count
        log.warning(
            "%s: %s: %d %s are left out: their questions are in an evaluation split of "
            "the domain, and nothing may learn them",
            *(context.stage, field, count, what),
        )
