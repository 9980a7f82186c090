"""pcmc beside its peers: `python -m benchmarks.peers` prints tables and writes JSON; docs/peers.md explains.

pcmc runs in the project's environment, the peer in one of its own that `--setup` makes; they exchange arrays
through .npz files, and neither imports the other.
"""
