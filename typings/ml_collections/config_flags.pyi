from typing import Any

from absl import flags

def DEFINE_config_file(
    name: str,
    default: str | None = None,
    help_string: str = ...,
    flag_values: flags.FlagValues = ...,
    lock_config: bool = True,
    **kwargs: Any,
) -> flags.FlagHolder[Any]: ...
