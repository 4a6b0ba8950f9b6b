"""The modalities that core declares: their medium, suffixes, usual columns and prompts."""

from __future__ import annotations

from fusemix_core.specs import CORE_MEDIA, ModalitySpec

IMAGE = ModalitySpec(
    name="image",
    medium=CORE_MEDIA["image"],
    suffixes=(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff",
              ".ppm", ".pgm", ".pbm", ".jp2", ".avif"),
    columns=("image_path", "image_name", "images", "img", "img_path", "image_file", "picture",
             "jpg", "png"),
    prompts=(
        "a photo of a {}.",
        "a picture of the {}.",
        "an image showing a {}.",
        "a close-up of a {}.",
        "a drawing of a {}.",
        "a diagram of a {}.",
        "{}",
    ),
)  # fmt: skip

TEXT = ModalitySpec(
    name="text",
    medium=CORE_MEDIA["text"],
    columns=("caption", "captions", "alt", "alt_text", "description", "title", "sentence",
             "sentences", "comment", "txt", "label"),
    prompts=("a text about {}.", "this is about {}.", "the topic is {}.", "{}"),
)  # fmt: skip

AUDIO = ModalitySpec(
    name="audio",
    medium=CORE_MEDIA["audio"],
    suffixes=(".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc", ".au",
              ".caf", ".w64", ".rf64"),
    columns=("audio_path", "wav", "sound", "speech", "clip", "audio_file", "flac", "mp3"),
    prompts=(
        "the sound of {}.",
        "a recording of {}.",
        "{} can be heard.",
        "{} in the background.",
        "{}",
    ),
)  # fmt: skip

VIDEO = ModalitySpec(
    name="video",
    medium=CORE_MEDIA["video"],
    suffixes=(".mp4", ".mkv", ".webm", ".mov", ".avi", ".m4v", ".mpg", ".mpeg"),
    columns=("video_path", "video_file", "mp4"),
    prompts=("a video of {}.", "a clip showing {}.", "footage of a person {}.", "{}"),
    example="clip.mp4",
)

TABLE = ModalitySpec(
    name="table",
    medium=CORE_MEDIA["table"],
    example='{"age": 61, "sex": "f"}',
)
