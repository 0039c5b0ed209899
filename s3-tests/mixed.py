"""Every kind of backend, for pools whose peers have different ones."""

import pathlib

import faulty_plugin

FAULTY = pathlib.Path(faulty_plugin.__file__).resolve()
# What is in memory goes with its process: the last peer, which the demo does not kill. Places of one peer have the same room, so that each gets its share.
MIXED = [
    "disk://{dir}/a?max_bytes=4GiB,disk://{dir}/b?cache=8MiB&max_bytes=4GiB",
    "rocksdb://{dir}/rocks?cache=8MiB&max_bytes=4GiB,opendal+fs://{dir}/mounted?max_bytes=4GiB",
    f"exec://{faulty_plugin.EXAMPLE}?dir={{dir}}/plugin&max_bytes=100000000000",
    "disk://{dir}/slow?bandwidth=400MB&quiet=23:00-07:00&quiet_bandwidth=300MB&reserve=64MiB",
    "memory:?max_bytes=4GiB",
]
