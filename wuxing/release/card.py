"""The model card: what the release is, how good, made of what, and what it must not be trusted with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from wuxing.model.architecture import describe
from wuxing.release.lineage import Source


def model_card(
    name: str,
    license: str,
    network_config: Mapping[str, Any],
    results: Mapping[str, Any],
    evaluated: str,
    sources: Sequence[Source],
    ancestors: Sequence[str],
    parity: Mapping[str, Any],
) -> str:
    """Markdown with the front matter that Hugging Face reads."""
    metrics: Mapping[str, Any] = results["models"][evaluated]["metrics"]
    rows = [
        f"| {metric} | {figure['value']:.4g} | {figure['low']:.4g} to {figure['high']:.4g} | {figure['n']} |"
        for metric, figure in metrics.items()
    ]
    lines = [
        "---",
        yaml.safe_dump(
            _front_matter(name, license, network_config, metrics), sort_keys=False, allow_unicode=True
        ).rstrip(),
        "---",
        f"# {name}",
        "",
        describe(dict(network_config)) + ".",
        "Made with Wuxing; every figure below was measured on held-out data before this card was written.",
        "",
        "## Figures",
        "",
        "| metric | value | 95 % interval | items |",
        "|---|--:|---|--:|",
        *rows,
        "",
        "## Equal to what was trained",
        "",
        *(f"- {line}" for line in _parity_lines(parity)),
        "",
        "## Made of",
        "",
        *(f"- `{id}`" for id in ancestors),
        "",
        "| data | source | licence |",
        "|---|---|---|",
        *(f"| `{one.artifact}` | {one.name} | {one.license} |" for one in sources),
        "",
        "## Limits",
        "",
        f"- Texts longer than {network_config['max_position_embeddings']:,} tokens do not fit.",
        "- It knows only the data named above, repeats their errors and biases, and invents what it does not know.",
        "- It was judged by the metrics above and by nothing else: not for safety, nor for advice of any kind.",
        "",
    ]
    return "\n".join(lines)


def _parity_lines(parity: Mapping[str, Any]) -> list[str]:
    lines = []
    for reader, found in parity["formats"].items():
        logits = found["logits"]
        lines.append(
            f"{reader}: {found['texts'] - len(found['ids'])} of {found['texts']} texts give the same token ids; "
            f"largest difference {logits['max_difference']:.2g}, likeliest token the same at "
            f"{logits['top1_agreement']:.2%} of {logits['positions']} positions"
        )
    return lines


def _front_matter(
    name: str, license: str, network_config: Mapping[str, Any], metrics: Mapping[str, Any]
) -> dict[str, Any]:
    return {
        "license": license,
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["wuxing", network_config["model_type"]],
        "model-index": [
            {
                "name": name,
                "results": [
                    {
                        "task": {"type": "text-generation"},
                        "dataset": {"type": metric.partition("/")[2], "name": metric.partition("/")[2]},
                        "metrics": [{"type": metric.partition("/")[0], "value": round(figure["value"], 4)}],
                    }
                    for metric, figure in metrics.items()
                ],
            }
        ],
    }
