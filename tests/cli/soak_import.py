# SPDX-License-Identifier: Apache-2.0
"""A dump of 200 MB: read in the memory of a small one."""
from test_import import check_memory


def test_200_megabytes(tmp_path):
    few, many, whole = check_memory(tmp_path, 200)
    print(f"peak: 1 MB {few >> 20} MiB, 200 MB {many >> 20} MiB, with writing and check {whole >> 20} MiB")
