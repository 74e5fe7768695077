"""Writes small CT series as real DICOM files, full of identifiers that must not leave them."""

from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

ROOT = "1.2.826.0.1.3680043.8.498.7777"
IDENTIFIERS = {
    "PatientName": "Xylander^Quirina",
    "PatientID": "MRN-00771234",
    "PatientBirthDate": "19510317",
    "StudyDate": "20190423",
    "SeriesDate": "20190424",
    "AcquisitionDate": "20190425",
    "StudyTime": "134517",
    "AccessionNumber": "ACC5512345",
    "InstitutionName": "Sankt Nirgendwo Klinik",
    "ReferringPhysicianName": "Wunderlich^Otto",
    "OtherPatientIDs": "OLD-998877",
    "StudyInstanceUID": f"{ROOT}.1",
    "SeriesInstanceUID": f"{ROOT}.2",
    "FrameOfReferenceUID": f"{ROOT}.3",
}
ORIGIN_MM = np.array([-60.0, -55.0, -130.0])
SPACING_MM = (0.7, 0.8)
STEP_MM = 2.5
SHAPE = (150, 140)
NODULE_MM = np.array([-10.0, -5.0, -120.0])


def volume_hu(points_mm: np.ndarray) -> np.ndarray:
    """Return the HU of a smooth scene at patient points (..., 3): a ball and a gradient."""
    distance = np.linalg.norm(points_mm - NODULE_MM, axis=-1)
    ball = 850 / (1 + np.exp((distance - 6) / 0.8))
    return -850 + ball + 2.0 * (points_mm[..., 0] - NODULE_MM[0])


def write_series(
    folder: Path,
    *,
    count: int = 9,
    orientation: tuple[float, ...] = (1, 0, 0, 0, 1, 0),
    origin: np.ndarray = ORIGIN_MM,
    series: str = f"{ROOT}.2",
    **changes: object,
) -> Path:
    """Write a series, its files in no particular order; `changes` overwrite attributes."""
    folder.mkdir(parents=True, exist_ok=True)
    row, column = np.array(orientation[:3], float), np.array(orientation[3:], float)
    normal = np.cross(row, column)
    for number in range(count):
        place = origin + normal * STEP_MM * number
        rows, columns = np.indices(SHAPE)
        points = (
            place
            + columns[..., None] * SPACING_MM[1] * row
            + rows[..., None] * SPACING_MM[0] * column
        )
        stored = np.rint((volume_hu(points) + 1024) / 2).astype(np.uint16)
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = CTImageStorage
        meta.MediaStorageSOPInstanceUID = f"{series}.{number + 1}"
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        path = folder / f"{(number * 5) % count:02d}-{series}.{number + 1}.dcm"
        file = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
        for name, value in IDENTIFIERS.items():
            setattr(file, name, value)
        file.SOPClassUID, file.SOPInstanceUID = CTImageStorage, f"{series}.{number + 1}"
        file.SeriesInstanceUID = series
        file.Modality, file.PhotometricInterpretation = "CT", "MONOCHROME2"
        file.Rows, file.Columns, file.SamplesPerPixel = *SHAPE, 1
        file.BitsAllocated, file.BitsStored, file.HighBit = 16, 16, 15
        file.PixelRepresentation = 0
        file.PixelSpacing = [float(v) for v in SPACING_MM]
        file.SliceThickness = STEP_MM
        file.ImageOrientationPatient = [float(v) for v in orientation]
        file.ImagePositionPatient = [round(float(v), 6) for v in place]
        file.RescaleSlope, file.RescaleIntercept = 2, -1024
        file.PixelData = stored.tobytes()
        for name, value in changes.items():
            if value is None:
                delattr(file, name)
            else:
                setattr(file, name, value)
        pydicom.dcmwrite(path, file, enforce_file_format=True)
    return folder
