"""One process of several that train the model of `small_run`: RANK 0 leads, others follow, as under torchrun.

`python member.py HOME STEPS`; the world is in HOME/world, the model in HOME/base.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path


def lead(home: Path, steps: int) -> None:
    import torch
    from small_run import base_config, base_parents, make_in, signed

    from wuxing.core.context import Context
    from wuxing.core.error import WuxingError
    from wuxing.train.model_kind import ModelKind

    torch.set_num_threads(1)
    kinds = {"vocabulary": "tokenizer", "articles": "tokens", "dialogues": "tokens"}
    places = {"articles": "articles.vocabulary", "dialogues": "dialogues.vocabulary"}
    world = {name: signed(home / "world" / places.get(name, name), kind, name) for name, kind in kinds.items()}
    context = Context(home=home, workers=1)
    try:
        config = base_config(save_every_seconds=1e-6, budget={"steps": steps})
        made = make_in(home / "base", ModelKind(), config, base_parents(world), context)
        print("failures:", made.record["failures"])
    except WuxingError as error:
        print("ERROR", error.what, flush=True)
        os._exit(75)
    finally:
        if context.team is not None:
            context.team.close()


if __name__ == "__main__":
    import fated

    fated.watch()
    if os.environ["RANK"] == "0":
        lead(Path(sys.argv[1]), int(sys.argv[2]))
    else:
        from wuxing.train.together import main

        main()
