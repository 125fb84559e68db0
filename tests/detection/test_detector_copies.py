"""Detectors in other threads, processes and hands."""

import copy
import multiprocessing
import os
import pickle
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from tiny_detector import LABELS, tiny, write

from htsat_sed import Detector, Event, PostProcessing
from htsat_sed.labels import ClassMap

RULES = PostProcessing(threshold=0.0, classes={"Dog": {"median_filter": 0.9}})
PETS = ClassMap("pets", {"Voice": ("Speech",), "Pet": ("Dog", "Cat")}, {"Pet": 0.25})


@pytest.mark.parametrize("value", [RULES, PETS])
def test_settings_are_copied_and_pickled(value: object) -> None:
    for again in (copy.copy(value), copy.deepcopy(value), pickle.loads(pickle.dumps(value))):
        assert again == value
        assert type(again) is type(value)


def test_a_detector_is_copied_and_works_in_a_spawned_process(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", 4.0)
    detector = Detector(tiny(), class_map=PETS, labels=["Pet"], hop=5.0, post_processing=RULES, batch_size=2)
    expected = detector.detect(path)
    assert expected
    for again in (copy.deepcopy(detector), pickle.loads(pickle.dumps(detector))):
        assert (again.labels, again.hop, again.post_processing) == (("Pet",), detector.hop, RULES)
        assert again.detect(path) == expected
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as processes:
        assert processes.submit(_events, detector, path).result() == expected


def test_a_deferred_detector_needs_no_device_before_it_computes(tmp_path: Path) -> None:
    elsewhere = Detector(tiny(), device="cuda", deferred=True)
    assert (elsewhere.device.type, elsewhere.runtime, elsewhere.labels) == ("cuda", "torch", LABELS)
    path = write(tmp_path / "a.wav", 4.0)
    here = {"device": "cpu", "post_processing": RULES, "batch_size": 2}
    deferred, whole = (Detector(tiny(), deferred=each, **here) for each in (True, False))
    assert (deferred.device, deferred.runtime) == (whole.device, whole.runtime)
    assert Detector(**{**deferred.arguments, "deferred": False}).detect(path) == whole.detect(path)
    assert deferred.detect(path) == whole.detect(path)


def _events(detector: Detector, path: Path) -> list[Event]:
    return detector.detect(path)


_FORKED = """
import os, sys
sys.path.insert(0, sys.argv[2])
from tiny_detector import tiny
from htsat_sed import Detector, UsageError
detector = Detector(tiny())
detector.detect(sys.argv[1])
if os.fork() == 0:
    try:
        detector.detect(sys.argv[1])
    except UsageError as error:
        print(error, flush=True)
    os._exit(0)
os.wait()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")
def test_a_forked_process_says_what_is_wrong(tmp_path: Path) -> None:
    # In a process of its own: a fork of this one, with the threads of other tests, may hang by itself.
    path = write(tmp_path / "a.wav", 1.0)
    tests = [Path(__file__).parent, Path(__file__).parent.parent]
    script = [sys.executable, "-W", "ignore", "-c", _FORKED, str(path), str(tests[0])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, [*tests, tests[1].parent]))}
    done = subprocess.run(script, env=environment, capture_output=True, text=True, timeout=120, check=True)
    assert "fork" in done.stdout


def test_the_model_given_stays_as_it_was(tmp_path: Path) -> None:
    model = tiny().train()
    path = write(tmp_path / "a.wav", 2.0)
    detector = Detector(model)
    expected = detector.presence_map(path).scores
    assert model.training
    assert model.backbone.training
    np.testing.assert_array_equal(expected, Detector(tiny()).presence_map(path).scores)
    model.bn0.reset_parameters()
    for parameter in model.parameters():
        parameter.data.zero_()
    np.testing.assert_array_equal(detector.presence_map(path).scores, expected)


def test_threads_do_not_change_one_another(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{i}.wav", 3.0 + i, i) for i in range(4)]
    detector = Detector(tiny(), batch_size=2, fill_batches=True)
    alone = [detector.presence_map(path).scores for path in paths]
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(lambda path: detector.presence_map(path).scores, paths * 3))
    assert detector.labels == LABELS
    for number, scores in enumerate(together):
        np.testing.assert_array_equal(scores, alone[number % 4])
