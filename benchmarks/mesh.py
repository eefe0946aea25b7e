"""The arithmetic of docs/en/scale.md: memory and traffic of one device for 1b, 7b and 70b, by how the state is shared.

    python benchmarks/mesh.py

Muon, bf16 products, rows of 4,096 tokens, one row at a time on each device, a vocabulary of 32,768.
"""

from __future__ import annotations

from dataclasses import replace

from wuxing.compute.memory import plan_memory
from wuxing.compute.mesh import Topology, cut, tables, traffic
from wuxing.model.architecture import Architecture, count_parameters, resolve

LENGTH, VOCABULARY = 4096, 32_768
DEVICE_BYTES = 80e9
LINK, NETWORK = 450e9, 50e9
"""What an H100 sends per second to the others of its host (NVLink), and over its own 400 Gbit/s adapter."""
HOST = 8


def said(size: int) -> str:
    """Struck out where it is more than a device has."""
    return f"{size / 1e9:,.0f} GB" if size <= DEVICE_BYTES else f"~~{size / 1e9:,.0f} GB~~"


def main() -> None:
    """Print the table."""
    print("| parameters | devices | state | memory | with recompute | sent within a group | between groups | seconds |")
    print("|---|--:|---|--:|--:|--:|--:|--:|")
    for size in ("1b", "7b", "70b"):
        shape = resolve(Architecture(size=size, max_positions=LENGTH, tie_embeddings=False), VOCABULARY)
        parameters, table = count_parameters(shape), tables(shape)
        plan = plan_memory(shape, parameters, LENGTH, LENGTH, 2, 4)
        plan = replace(plan, optimizer=4 * (parameters + table))  # one moment for matrices, two for tables
        for topology in (Topology(8, 1), Topology(1, 8), Topology(64, 1), Topology(8, 8), Topology(1, 64)):
            whole = cut(plan, shape, topology.shards)
            layers, width = shape["num_hidden_layers"], shape["hidden_size"]
            least = replace(whole, activations=whole.activations // layers + LENGTH * layers * (4 + 2) * width)
            memory = [said(one.peak) for one in (whole, least)]
            sent = traffic(topology, parameters, table, muon=parameters - table)
            within, between = (sent.within, sent.between) if topology.shards > 1 else (0.0, sent.within)
            inside = LINK if topology.shards <= HOST else NETWORK
            outside = LINK if topology.ranks <= HOST else NETWORK
            seconds = within / inside + between / outside
            print(
                f"| {parameters / 1e9:.2g}e9 | {topology.ranks} | {topology.sharding} "
                f"{topology.replicas} × {topology.shards} | {memory[0]} | {memory[1]} | {within / 1e9:,.1f} GB "
                f"| {between / 1e9:,.1f} GB | {seconds:.2f} |"
            )


if __name__ == "__main__":
    main()
