"""server/engines/triton/assignment.py: who answers for what, from lists written down here."""

from server.engines.model import Model, Unusable
from server.engines.triton.assignment import (
    Listing,
    Pool,
    answers_for,
    assign,
    group_by_kind,
    kept,
    pool_of,
    preferred,
)
from server.problems import ModelNotReady
from tests.server.engines.fakes import model

OLD, NEW = model(), model(resize="shortest")
GONE = Unusable("m", "", ModelNotReady("not loaded"))


def listing(replica: str, *entries: Model | Unusable, broken: tuple[str, ...] = ()) -> Listing[str]:
    return Listing(replica, {each.name: each for each in entries}, broken)


def test_interchangeable_models_form_one_group_in_the_order_of_their_replicas() -> None:
    again = model()
    groups = group_by_kind([("a", OLD), ("b", NEW), ("c", GONE), ("d", again)])
    assert groups == [[("a", OLD), ("d", again)], [("b", NEW)]]
    assert group_by_kind([("c", GONE)]) == []


def test_most_replicas_decide_and_of_as_many_what_was_asked_for_before() -> None:
    one, two = [("a", OLD)], [("b", NEW)]
    assert preferred([one, [*two, ("c", NEW)]], before=OLD) == [*two, ("c", NEW)]
    assert preferred([one, two], before=NEW) == two
    assert preferred([one, two], before=OLD) == one
    assert preferred([one, two], before=None) == one
    assert preferred([one, two], before=GONE) == one


def test_an_equal_model_keeps_its_object() -> None:
    again = model()
    assert kept(OLD, again) is OLD
    assert kept(NEW, again) is again
    assert kept(GONE, again) is again
    assert kept(None, again) is again


def test_a_pool_avoids_the_broken_unless_all_are() -> None:
    group = [("a", model(instances=1)), ("b", model(instances=2))]
    assert pool_of(group, []) == Pool(["a", "b"], 3)
    assert pool_of(group, ["a"]) == Pool(["b"], 2)
    assert pool_of(group, ["a", "b"]) == Pool(["a", "b"], 3)
    assert pool_of(group, []).slots == 5


def test_only_an_interchangeable_model_answers_for_another() -> None:
    assert answers_for(model(), OLD)
    assert not answers_for(NEW, OLD)
    assert not answers_for(GONE, OLD)
    assert not answers_for(None, OLD)


def test_each_name_gets_an_entry_and_each_model_a_pool() -> None:
    other = model("other", instances=4)
    listings = [
        listing("a", OLD, other),
        listing("b", model(), broken=("m", "other")),
        listing("c", GONE),
        listing("d", NEW, Unusable("bad", "1", ModelNotReady("failed"))),
    ]
    entries, pools = assign(listings, {})
    assert entries.keys() == {"m", "other", "bad"}
    assert entries["m"] is OLD
    assert isinstance(entries["bad"], Unusable)
    assert pools == {OLD: Pool(["a"], 1), other: Pool(["a"], 4)}
    # A rolling release: the new kind has the majority, then the old one has gone.
    entries, pools = assign([listing("a", OLD), listing("b", NEW), listing("d", NEW)], entries)
    assert entries == {"m": NEW}
    assert pools == {NEW: Pool(["b", "d"], 2)}
    assert assign([listing("a", GONE)], entries) == ({"m": GONE}, {})
    assert assign([], entries) == ({}, {})
