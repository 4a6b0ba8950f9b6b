"""Pictures, words and speech in one space, and a search between two that were never paired.

The figures of the sample have descriptions; eSpeak NG speaks some of them. Training sees pairs of
(picture, words) and pairs of (words, speech), of different figures: no picture with its own speech.
Yet speech finds pictures and pictures find speech, since both were aligned with words.

    pip install './plugins/fusemix-starter[speech]' espeakng-loader
    python examples/three_modalities.py

The first run takes a minute or two on two cores; a second one starts from the latent store.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from sample import first_words, sample_rows, show_recall, write_csv
from speech import ShortSpeech, speak

import fusemix_core

NEVER = "never paired in training"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--limit", type=int, default=1000, help="figures (the sample has 1,516)")
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "triples.csv"
        write_csv(data, triples(args.limit))
        result = fusemix_core.align(
            {"image": "efficientnet-lite0", "text": "minilm", "audio": ShortSpeech},
            {"source": str(data), "split_column": "split", "allow_outside": True},
            overrides=["aligner.landmarks=0"],  # plain CCA: quicker, and as good on so few pairs
        )
    directions = result.results["test"]["retrieval"]["directions"]
    show_recall(directions, {"image->audio": NEVER, "audio->image": NEVER})
    print(f"report: {result.folder.report}")


def triples(limit: int) -> list[dict[str, str]]:
    """Rows of image, text, audio, split. In training and validation each has a picture or speech,
    never both; only test rows have all three."""
    rows = []
    for i, row in enumerate(sample_rows(limit)):
        test = row["split"] == "test"
        rows.append(
            {
                "image": row["image"] if test or i % 2 == 0 else "",
                "text": first_words(row["text"]),
                "audio": "",
                "split": row["split"],
            }
        )
    spoken = [row for i, row in enumerate(rows) if row["split"] == "test" or i % 2 == 1]
    for row, clip in zip(spoken, speak([row["text"] for row in spoken]), strict=True):
        row["audio"] = str(clip)
    return rows


if __name__ == "__main__":
    main()
