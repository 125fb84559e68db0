"""Data that tests of training share."""

from pathlib import Path

import pytest
from clips_made import write

from htsat_sed.labels import audioset_codes


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of every kind, with the same recordings."""
    folder = tmp_path_factory.mktemp("data")
    for i in range(8):
        write(folder / "audio" / f"{i}.wav", 1.0, frequency=300.0 * (1 + i % 2))
    label = ["Low", "High"]
    (folder / "clips.tsv").write_text(
        "filename\tlabel\tfold\tonset\toffset\n"
        + "".join(f"{i}.wav\t{label[i % 2]}\t{i // 2 + 1}\t0.1\t0.9\n" for i in range(8))
    )
    (folder / "weak.tsv").write_text(
        "filename\tevent_labels\n0.wav\tLow\n1.wav\tHigh\n2.wav\tHigh,Low\n3.wav\t\n"
    )
    (folder / "strong.tsv").write_text(
        "filename\tonset\toffset\tevent_label\n4.wav\t0.0\t0.5\tLow\n5.wav\t0.5\t1.0\tHigh\n6.wav\t\t\t\n"
    )
    (folder / "meta").mkdir()
    (folder / "meta" / "esc50.csv").write_text(
        "filename,fold,target,category\n"
        + "".join(f"{i}.wav,{i % 5 + 1},0,{label[i % 2]}\n" for i in range(8))
    )
    codes = list(audioset_codes())
    (folder / "segments.csv").write_text(
        "# Segments csv created Sun Mar  5 10:54:31 2017\n# num_ytids=3\n"
        f'0, 30.000, 40.000, "{codes[0]},{codes[3]}"\n1, 0.000, 10.000, "{codes[1]}"\n'
        f'gone, 0.000, 10.000, "{codes[2]}"\n'
    )
    return folder
