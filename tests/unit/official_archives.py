"""Archives of the form of ImageNet's official ones, written by Python's `tarfile`, and tiny pictures for them.

And how a command that unpacks them is killed.
"""

import base64
import io
import multiprocessing
import os
import signal
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image

# meta.mat as SciPy 1.17 writes it: the variables `other` and `synsets`, whose fields are those of the official file.
# Numbers 1 to 10 are Imagenette's synsets in this order, 11 and 12 are inner nodes.
META = base64.b64decode(
    "TUFUTEFCIDUuMCBNQVQtZmlsZSBQbGF0Zm9ybTogcG9zaXgsIENyZWF0ZWQgb246IFR1ZSBOb3YgMjQgMTY6NTY6NTQgMjAyNgAAAAAAAAAA"
    "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAABSU0PAAAAMgAAAHic42NgYAgAYjYg5gBiPgYIYIXyGYGYGUqD"
    "xPJLMlKLgDQPEEswIAAjlGaC0gCB7QLbDwAAAAwCAAB4nO2Y30rDMBTGz9T901kVvPGuj5B22dreFfRCQbxQ0MtSZlkLs5O1InsDH9vWJTUr"
    "tZpkxJscCOFk/b7knP2gJQYAXF8A9Ip5UIw92ESX5KNidMjoFyNbp1mUZ8XvB3BG1j+KcXP78Hh/aSPLDm6uSoOnu81cxfty9ZyxC/PFMtta"
    "SN9eglmcLJ5XUfq1sJVQjzTKgzhK5nFOJPkqTNIgeQnnUQZGsejCdz1GrZ4OM4DUNyC1AXneZ/QHDfohoz8leYosjJEzxRw+Rs3HIBWajFm9"
    "niaffs2nzENz017RftAon0eMvtegB2YeMjrZfUX05105/T6zvw8iHNgWshFGHD4tHFRmmgO1HBwy+/sgxIHneJY75fBp44CaaQ7UckBzcQ7G"
    "CKGpu6P3QmWmOVDLQZfZ3wcxDmwXOR6HTysHxExzoJYD+n0swcHYw561o/dCZaY5UMsBe34fhDjAloOwzeHTxgE10xyo5YCeQYYDe4KtMYdP"
    "KwfETHOglgPaXxkO8MRxHA6fVg6ImeZALQe0PgkOXNe1J7vigJppDtRycMTs74MIB0VYztY90m//X6/mU+ZRmif5+m/nOK7pyzyPw9x8j5NZ"
    "bCaZRD9++m5u0u/V9JTFMtj7Odlz/AdXox/6wMeFN+a5Xzyp+ZT5a7zOklm4MAkgoucJU+og15eOpP5QUi+7P41PlxjBWg=="
)
NUMBER_OF = {
    "n01440764": 7,
    "n02102040": 3,
    "n02979186": 10,
    "n03000684": 1,
    "n03028079": 5,
    "n03394916": 2,
    "n03417042": 9,
    "n03425413": 8,
    "n03445777": 4,
    "n03888257": 6,
}


def picture(number: int, side: int = 40, kind: str = "JPEG") -> bytes:
    """A picture of noise, another one for each number."""
    pixels = np.random.default_rng(number).integers(0, 256, (side, side, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def tar(files: Mapping[str, bytes], form: int = tarfile.USTAR_FORMAT, mode: str = "w") -> bytes:
    """A tar archive."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode, format=form) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


def zip_of(files: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip archive, with an entry for each folder."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for folder in sorted({name.rpartition("/")[0] for name in files}):
            archive.mkdir(folder)
        for name, content in files.items():
            archive.writestr(name, content)
    return file.getvalue()


def training_archive(path: Path, classes: Mapping[str, Mapping[str, bytes]]) -> Path:
    """ILSVRC2012_img_train.tar: synset -> file name -> content."""
    path.write_bytes(tar({f"{synset}.tar": tar(files) for synset, files in classes.items()}))
    return path


def development_kit(path: Path, synsets: list[str], meta: bytes = META) -> Path:
    """ILSVRC2012_devkit_t12.tar.gz, with the classes of the validation pictures in order."""
    numbers = "".join(f"{NUMBER_OF[synset]}\n" for synset in synsets)
    top = "ILSVRC2012_devkit_t12"
    files = {
        f"{top}/readme.txt": b"ILSVRC2012",
        f"{top}/data/ILSVRC2012_validation_ground_truth.txt": numbers.encode(),
        f"{top}/data/meta.mat": meta,
    }
    path.write_bytes(tar(files, mode="w:gz"))
    return path


def validation_name(number: int) -> str:
    """The file name of a validation picture."""
    return f"ILSVRC2012_val_{number:08d}.JPEG"


def tree(folder: Path) -> dict[str, bytes]:
    """All files below a folder, hidden ones included."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def killed_at(number: int, early: bool, command: Callable[[list[str]], None], arguments: list[str]) -> None:
    """Runs the command in a process of its own, which kills itself when it puts the file of that number there.

    Args:
        early: before that file is whole.
    """

    def run() -> None:
        rename, count = os.replace, iter(range(1000))

        def rename_or_die(source: Path, target: Path) -> None:
            last = next(count) == number
            if last and early:
                os.truncate(source, 1)  # as if in the middle of writing
            else:
                rename(source, target)
            if last:
                os.kill(os.getpid(), signal.SIGKILL)

        os.replace = rename_or_die  # type: ignore[assignment]
        command(arguments)

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
