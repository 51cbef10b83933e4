"""A fortieth of the zoo a day: each network as student and as teacher, trained for one step or
refused in words of ours. KDMEDLEARN_ZOO=3 takes the fourth fortieth, =all takes everything;
tools/zoo.py writes the counts of all down."""

import datetime
import os

import pytest

from zoo import Member, members, there, try_member


def todays() -> list[Member]:
    "The fortieth of the day, or that which KDMEDLEARN_ZOO says."
    which = os.environ.get("KDMEDLEARN_ZOO", str(datetime.date.today().toordinal() % 40))
    return [m for i, m in enumerate(members()) if which == "all" or i % 40 == int(which)]


@pytest.mark.slow
@pytest.mark.parametrize("member", todays(), ids=lambda m: f"{m.source}-{m.name}")
def test_a_network_trains_or_is_refused_in_our_words(member):
    if not there(member.source):
        pytest.skip(f"{member.source} is not installed")
    found = try_member(member)
    bare = {k: v for k, v in found.items() if v.startswith("bare")}
    assert not bare, bare
    refused = {k: v for k, v in found.items() if v.startswith("refused")}
    assert {k.split()[1] for k in refused} == set(member.refused), refused
    for message in refused.values():
        assert ";" in message or ". " in message, f"no cure: {message}"


def test_the_list_of_the_zoo():
    names = [(m.source, m.name) for m in members()]
    assert len(set(names)) == len(names) > 100
    assert {m.source for m in members()} == {
        "timm", "torchvision", "segmentation", "smp", "monai", "transformers",
    }  # fmt: skip
