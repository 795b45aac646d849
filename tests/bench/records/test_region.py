"""Names of regions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.records.region import PHASES, TOWERS, Region

REGIONS = st.builds(
    Region,
    name=st.from_regex(r"[a-z0-9_]+", fullmatch=True),
    phase=st.sampled_from(PHASES),
    tower=st.sampled_from(("", *TOWERS)),
    block=st.none() | st.integers(0, 99),
)


@given(REGIONS)
def test_a_name_is_read_back_as_it_was_written(region: Region) -> None:
    assert Region.parse(str(region)) == region


@pytest.mark.parametrize("text", ["", "scan", "sideways/scan", "forward/", "forward/blocks.x/scan", "forward/a/b/c"])
def test_other_text_is_not_a_region(text: str) -> None:
    with pytest.raises(ValueError, match="not a region"):
        Region.parse(text)


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("in_proj", "projections"),
        ("kv_proj", "projections"),
        ("selective_scan", "scan"),
        ("causal_conv", "convolution"),
        ("linear2", "feed-forward"),
        ("something_new", "something_new"),
    ],
)
def test_groups(name: str, group: str) -> None:
    assert Region(name=name).group == group


def test_the_backward_pass_of_a_region_keeps_its_place() -> None:
    assert str(Region(name="norm", tower="user", block=3).backward) == "backward/user/blocks.3/norm"
