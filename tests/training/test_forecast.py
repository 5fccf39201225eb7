"""What is told of a step: read from what compilers say."""

from __future__ import annotations

import pytest

from aprm_jax.training.chips import Topology
from aprm_jax.training.forecast import _refused

# As libtpu 0.0.42 says it.
REFUSALS = (
    "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory "
    "space hbm. Used 34.50G of 15.75G hbm. Exceeded hbm capacity by 18.75G.",
    "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO "
    "temporaries (34.50G) exceeds available HBM (15.75G).",
)


@pytest.mark.parametrize("said", REFUSALS)
def test_a_refusal_says_how_much_there_is_and_would_be_needed(said):
    known = {"name": "update", "holds": {}, "beside": 0.0}
    known |= {"flops": 1.97e14, "useful_flops": 1.0}
    told = _refused(known, said, Topology.of("v5e:4x4"))
    assert (told.peak, told.room) == (34.5 * 2**30, 15.75 * 2**30)
    assert not told.fits and told.seconds == {"compute": 1.0}
