"""WebDataset: tar archives of so many cases each, ``shards/synth-000000.tar``, with an index, ``shards/index.json``.

A sample is a case: ``<case>.<channel>.nii.gz``, ``<case>.seg.nii.gz`` and ``<case>.json``. The index is that of the
library's `wids`. A case is kept by itself until all of its archive are done; see `synthaug.cohort.packing`.
"""

import io
import tarfile
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import nibabel as nib

from synthaug.cohort.encoding import Items, json_bytes, json_pieces
from synthaug.cohort.layouts.base import Layout
from synthaug.cohort.store import Content, Store
from synthaug.data.nifti import nifti_of

if TYPE_CHECKING:
    import numpy as np

    from synthaug.cohort.config import CohortConfig
    from synthaug.cohort.description import Written
    from synthaug.cohort.hosts import Host

FOLDER = "shards"


class WebDatasetLayout(Layout):
    """Lays a cohort out in archives for training straight from it.

    Args:
        config: the cohort's configuration; `packing.shard_cases` is the number of cases in an archive.
    """

    def __init__(self, config: "CohortConfig"):
        super().__init__(config)
        self.shard_cases = config.packing.shard_cases

    def shard_path(self, shard: int) -> str:
        """Name an archive."""
        return f"{FOLDER}/{self.prefix}-{shard:06d}.tar"

    def real_name(self, name: str) -> str:
        """Name a real case: what follows a dot would be read as the kind of a file."""
        return name.replace(".", "-")

    def image_paths(self, name: str) -> list[str]:
        """Name the members of a case's channels, within an archive."""
        return [f"{name}.{channel}.nii.gz" for channel in self.channels]

    def label_path(self, name: str) -> str:
        """Name the member of a case's label."""
        return f"{name}.seg.nii.gz"

    def case_files(
        self, name: str, host: "Host", image: "np.ndarray | None", label: "np.ndarray | None"
    ) -> dict[str, bytes]:
        """Write the members of a case, and a ``.json`` that says where it is from."""
        about = {"case": name, "real": image is None, "host": host.case.name, "host_group": host.case.group}
        return {**super().case_files(name, host, image, label), f"{name}.json": json_bytes(about)}

    def read_back(
        self, store: Store, record: Mapping[str, Any], channel: str
    ) -> tuple[nib.Nifti1Image, nib.Nifti1Image]:
        """Read one channel and the label of a case that was written, each (X, Y, Z)."""
        name, shard = record["case"], self.shard_path(record["index"] // self.shard_cases)
        members = (f"{name}.{channel}.nii.gz", self.label_path(name))
        volume, label = (nifti_of(store.read(f"{shard}/{member}")) for member in members)
        return volume, label

    def description(self, provenance: Mapping[str, Any], written: "Written") -> dict[str, Content]:
        """Write ``dataset.json`` and the index of the archives."""
        content = self.facts(provenance, written, self.label_values)
        index = {
            "__kind__": "wids-shard-index-v1",
            "wids_version": 1,
            "name": self.about.name,
            "shardlist": Items(lambda: self._shards(written)),
        }
        return {"dataset.json": json_bytes(content), f"{FOLDER}/index.json": json_pieces(index)}

    def _shards(self, written: "Written") -> Any:
        """List the archives that have a case, with their number of cases and bytes."""
        shard, count, size = -1, 0, 0
        for record in written:
            number = record["index"] // self.shard_cases
            if number != shard and count:
                yield self._entry(shard, count, size)
            if number != shard:
                shard, count, size = number, 0, 0
            count += 1
            size += fragment_size(about["bytes"] for about in record["files"].values())
        if count:
            yield self._entry(shard, count, size)

    def _entry(self, shard: int, count: int, size: int) -> dict[str, Any]:
        path = self.shard_path(shard).removeprefix(f"{FOLDER}/")
        return {"url": path, "nsamples": count, "filesize": size + len(END)}


END = bytes(1024)
"""The end of a tar archive."""


def fragment(files: Mapping[str, bytes]) -> bytes:
    """Write members as they are in a tar archive, without its end; the same members give the same bytes."""
    out = io.BytesIO()
    for name, content in files.items():
        info = tarfile.TarInfo(name)
        info.size, info.mode = len(content), 0o644
        out.write(info.tobuf(tarfile.USTAR_FORMAT))
        out.write(content)
        out.write(bytes(-len(content) % tarfile.BLOCKSIZE))
    return out.getvalue()


def fragment_size(sizes: Any) -> int:
    """Number of bytes that members of these sizes have in an archive."""
    block = tarfile.BLOCKSIZE
    return sum(block + -(-size // block) * block for size in sizes)
