"""Small DICOM images, and sounds in the containers that PyAV writes."""

import io

import numpy as np


def dicom(values, *, bits: int = 12, signed: bool = False, **facts) -> bytes:
    """A DICOM file of grey values `[h, w]` or colours `[h, w, 3]`; `facts` by keyword."""
    import pydicom
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

    values = np.asarray(values)
    meta = pydicom.dataset.FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    data = pydicom.Dataset()
    data.file_meta = meta
    data.Rows, data.Columns = values.shape[:2]
    data.SamplesPerPixel = 3 if values.ndim == 3 else 1
    if values.ndim == 3:
        data.PlanarConfiguration = 0
    data.PhotometricInterpretation = "RGB" if values.ndim == 3 else "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit = 8 if bits == 8 else 16, bits, bits - 1
    data.PixelRepresentation = int(signed)
    for name, value in facts.items():
        setattr(data, name, value)
    kind = ("i" if signed else "u") + str(data.BitsAllocated // 8)
    data.PixelData = values.astype(f"<{kind}").tobytes()
    sink = io.BytesIO()
    data.save_as(sink, enforce_file_format=True)
    return sink.getvalue()


def clip(form: str, wave: np.ndarray | None = None, rate: int = 16_000) -> bytes:
    """A sound as AAC in `mp4` or `adts`, or as Opus in `webm`; wave `[channels, n]`."""
    import av

    if wave is None:
        wave = 0.5 * np.sin(np.arange(4800) / 7)[None]
    wave = np.ascontiguousarray(wave, np.float32)
    layout = "mono" if len(wave) == 1 else "stereo"
    sink = io.BytesIO()
    with av.open(sink, "w", format=form) as container:
        name = "libopus" if form == "webm" else "aac"
        stream = container.add_stream(name, rate=rate, layout=layout)
        frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout=layout)
        frame.sample_rate = rate
        resampler = av.AudioResampler(
            stream.format, layout, stream.rate, stream.codec_context.frame_size or 1024
        )
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))
    return sink.getvalue()
