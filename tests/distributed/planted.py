"""Files that lie in people's projects and must stay there, with what they really hold."""

import gzip
import io
import json
import pickle
import struct
import zipfile

import numpy as np

KEY = "-----BEGIN OPENSSH " + "PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEA\n"
KUBECONFIG = "apiVersion: v1\nclusters: []\nkind: Config\nusers: [{name: me, user: {}}]\n"
CSV = b"patient_id,age,malignant\nMRN-1,63,1\n"


def _numpy() -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.zeros((2, 4, 4, 4), np.float32))
    return stream.getvalue()


def _npz() -> bytes:
    stream = io.BytesIO()
    np.savez(stream, image=np.zeros((2, 4, 4, 4), np.float32))
    return stream.getvalue()


def _dicom(preamble: bool) -> bytes:
    name = b"MRN^ONE "
    element = b"\x10\x00\x10\x00PN" + struct.pack("<H", len(name)) + name
    first = b"\x08\x00\x05\x00CS\x0a\x00ISO_IR 100"
    return (b"\0" * 128 + b"DICM" if preamble else b"") + first + element


def _nifti() -> bytes:
    return struct.pack("<i", 348) + b"\0" * 340 + b"n+1\0" + b"\0" * 64


def _safetensors() -> bytes:
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    return struct.pack("<Q", len(header)) + header + b"\0\0\0\0"


def _torch() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as packed:
        packed.writestr("archive/data.pkl", pickle.dumps({}))
    return stream.getvalue()


NEVER = {
    "nodules.npz": _npz(),
    "nodules.npy": _numpy(),
    "scan.nii": _nifti(),
    "scan.nii.gz": gzip.compress(_nifti()),
    "SCAN.DCM": _dicom(preamble=True),
    "scan.dcm": _dicom(preamble=False),
    "IM0001": _dicom(preamble=True),
    "1.2.840.113619": _dicom(preamble=False),
    "people.parquet": b"PAR1" + b"\0" * 16 + b"PAR1",
    "people.PARQUET": b"PAR1" + b"\0" * 16 + b"PAR1",
    "crops.h5": b"\x89HDF\r\n\x1a\n" + b"\0" * 16,
    "volume.nrrd": b"NRRD0004\ntype: short\n\n\0\0",
    "volume.mha": b"ObjectType = Image\nElementDataFile = LOCAL\n\0\1",
    "volume.mhd": b"ObjectType = Image\nElementDataFile = volume.raw\n",
    "volume.raw": b"\0\1" * 100,
    "slice.png": b"\x89PNG\r\n\x1a\n\0",
    "slice.tif": b"II*\0\0",
    "arrays.mat": b"MATLAB 5.0 MAT-file\0",
    "judge.pt": _torch(),
    "judge.pth": pickle.dumps({"w": 1}, protocol=2),
    "last.ckpt": _torch(),
    "model.safetensors": _safetensors(),
    "cases.pkl": pickle.dumps({"patient": "MRN-1"}),
    "old.pickle": pickle.dumps({"patient": "MRN-1"}, protocol=0),
    "ledger.sqlite": b"SQLite format 3\0",
    "table.xlsx": _torch(),
    "archive.zip": _torch(),
    "archive.tar.gz": gzip.compress(b"x"),
    ".env": b"WANDB_API_KEY=" + b"0123456789abcdef" * 2,
    ".env.local": b"A=1\n",
    "id_rsa": KEY.encode(),
    "id_ed25519": KEY.encode(),
    "server.pem": KEY.encode(),
    "server.key": b"x",
    "kubeconfig": KUBECONFIG.encode(),
    "credentials.json": b"{}",
    "client_secret.json": b"{}",
    "service-account.json": b"{}",
    ".netrc": b"machine a login b password c\n",
    ".npmrc": b"",
    ".git-credentials": b"",
    ".ssh/config": b"Host a\n",
    ".aws/config": b"[default]\n",
    ".kube/cache.yaml": b"a: 1\n",
    ".docker/config.json": b"{}",
}
"""Never sent, asked for or not. The last ones by their names, whatever they hold."""

DISGUISED = {
    "notes/volume.txt": _nifti(),
    "notes/image.txt": _dicom(preamble=True),
    "notes/series": _dicom(preamble=False),
    "notes/array.txt": _numpy(),
    "notes/arrays.dat": _npz(),
    "notes/table.txt": b"PAR1" + b"\0" * 8,
    "notes/volume.dat": gzip.compress(_nifti()),
    "notes/weights.dat": _safetensors(),
    "notes/object.txt": pickle.dumps({"patient": "MRN-1", "crops": [1, 2]}, protocol=0),
    "notes/object.dat": pickle.dumps({"patient": "MRN-1"}),
    "notes/hdf.dat": b"\x89HDF\r\n\x1a\n",
    "notes/key.txt": KEY.encode(),
    "notes/putty.txt": b"PuTTY-User-Key-File-3: ssh-ed25519\n",
    "notes/cluster.yaml": KUBECONFIG.encode(),
    "notes/account.json": b'{"private_' + b'key": "x", "type": "service_account"}',
    "notes/settings.sh": b"export WANDB_API_" + b"KEY=0123456789abcdef0123\n",
    "notes/settings.ini": b"aws_secret_access_" + b"key = abcdefgh/ijklmnop\n",
    "notes/settings.yaml": b"user: me\npass" + b"word: hunter2hunter2\n",
    "notes/settings.json": b'{"api_' + b'token": "0123456789abcdef"}',
    "notes/login": b"machine a login b pass" + b"word c\n",
    "notes/mirror.toml": b'index = "https://me:hunter2' + b'@mirror.example/simple"\n',
    "notes/aws.txt": b"AKIA" + b"ABCDEFGHIJKLMNOP\n",
    "notes/hub.txt": b"hf_" + b"abcdefghijklmnopqrstuvwx\n",
    "notes/volume.header": b"ObjectType = Image\nElementDataFile = LOCAL\n",
    "notes/patient.json": b'{"00100010": {"vr": "PN", "Value": [{"Alphabetic": "MRN^ONE"}]}}',
    "notes/dump.txt": b"(0010,0010) PN [MRN^ONE]\n",
    "notes/cells.ipynb": b'{"image": "' + b"iVBORw0K" * 300 + b'"}',
    "notes/wide.txt": "MRN-1".encode("utf-16"),
}
"""The same contents under harmless names: refused even if they are included by name."""

ASKED_FOR = {
    "nodules.csv": CSV,
    "patients.tsv": CSV.replace(b",", b"\t"),
    "lungs.json": b'{"case": "MRN-1"}',
    "notes.txt": b"MRN-1 looks odd: see the token of last week, key=3\n",
    "README.md": b"# Mine\n",
    "own.py": b"TOKEN = 'x'\npassword: str\n",
    "id_rsa.pub": b"ssh-rsa AAAA me\n",
    "data/patients.csv": CSV,
    "stores/mine/x.json": b"{}",
    "wandb/run.txt": b"x",
    "namd/nodules.csv": CSV,
    "namd/data/lungs.yaml": b"a: 1\n",
    "analysis/people.json": b"{}",
    "experiments/other.yaml": b"name: other\n",
}
"""Text that only an `--include` sends."""
