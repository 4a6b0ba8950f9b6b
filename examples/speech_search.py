"""Search speech by words: spoken captions and text in one space, then a few queries.

eSpeak NG speaks the first words of the sample's descriptions; Whisper's encoder and MiniLM are
aligned on most of them, and tested on the rest, of other modules of the books.

    pip install './plugins/fusemix-starter[speech]' espeakng-loader
    python examples/speech_search.py
    python examples/speech_search.py "a map of Europe" "a chemical reaction"

For recordings of your own, write a CSV with the columns audio and text, and align it as below.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from sample import first_words, sample_rows, show_recall, write_csv
from speech import ShortSpeech, speak

import fusemix_core

QUERIES = [
    "A map of Africa is shown.",
    "A political cartoon shows a man.",
    "A graph shows how prices change.",
]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("queries", nargs="*", default=QUERIES)
    parser.add_argument("--limit", type=int, default=700, help="captions to speak")
    args = parser.parse_args()

    rows = sample_rows(args.limit)
    texts = [first_words(row["text"]) for row in rows]
    rows = [
        {"audio": str(clip), "text": text, "split": row["split"]}
        for row, text, clip in zip(rows, texts, speak(texts), strict=True)
    ]
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "spoken.csv"
        write_csv(data, rows)
        result = fusemix_core.align(
            {"audio": ShortSpeech, "text": "minilm"},
            {"source": str(data), "split_column": "split", "allow_outside": True},
            overrides=["aligner.landmarks=0"],  # plain CCA: quicker, and as good on so few pairs
        )
    show_recall(result.results["test"]["retrieval"]["directions"])

    clips = [row for row in rows if row["split"] == "test"]
    model = result.model
    gallery = model.encode("audio", [row["audio"] for row in clips])
    scores = model.similarity(model.encode("text", args.queries), gallery, "text", "audio")
    for query, row in zip(args.queries, scores, strict=True):
        print(f"\n{query}")
        for best in row.topk(min(3, len(clips))).indices.tolist():
            print(f"  {Path(clips[best]['audio']).name}: “{clips[best]['text']}”")


if __name__ == "__main__":
    main()
