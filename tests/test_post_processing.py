"""Post-processing values: copies, layers and what is refused."""

import copy
import pickle

import pytest

from htsat_sed.errors import UsageError
from htsat_sed.post_processing import VALUES, PostProcessing

RULES = PostProcessing(threshold=0.4, min_gap=1.0, classes={"Dog": {"threshold": 0.2}, "Cat": {"min_gap": 2}})


def test_copies_and_pickles_are_equal_and_read_only() -> None:
    for twin in (copy.copy(RULES), copy.deepcopy(RULES), pickle.loads(pickle.dumps(RULES))):
        assert twin == RULES
        assert hash(twin) == hash(RULES)
        with pytest.raises(TypeError):
            twin.classes["Dog"] = {}


def test_every_value_is_checked_whatever_its_type() -> None:
    for name in VALUES:
        for wrong in (-100.1, "0.5", True, float("nan"), float("inf"), 10**400, 10**5000, [], {"a": {}}):
            with pytest.raises(UsageError, match=name):
                PostProcessing(**{name: wrong})
            with pytest.raises(UsageError, match=f"'Dog'.*{name}"):
                PostProcessing(classes={"Dog": {name: wrong}})
    with pytest.raises(UsageError, match="unknown post-processing value treshold"):
        PostProcessing(classes={"Dog": {"treshold": 0.5}})


def test_layers_over_many_classes_look_at_each_a_few_times() -> None:
    """Work that grows with the square of the classes would look at each of these a thousand times."""

    class Counting(dict[str, float]):
        looks = 0

        def __iter__(self):  # type: ignore[no-untyped-def]
            Counting.looks += 1
            return super().__iter__()

    class Tables(dict[str, dict[str, float]]):
        def values(self):  # type: ignore[no-untyped-def]
            Counting.looks += len(self)
            return super().values()

    tables = Tables({f"class {i}": Counting(threshold=0.25) for i in range(1000)})
    laid = PostProcessing(threshold_low=0.3).override({"classes": tables})
    assert laid.of("class 7") == PostProcessing(threshold=0.25, threshold_low=0.25)
    assert Counting.looks <= 10 * len(tables)
