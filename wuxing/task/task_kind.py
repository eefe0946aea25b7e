"""`make: task`: examples in the layout of a corpus, a verifier, and evidence that the verifier can be trusted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from wuxing.core.artifact import Artifact
from wuxing.core.context import Context
from wuxing.core.digest import digest_of_file
from wuxing.core.error import WuxingError
from wuxing.core.file import write_json
from wuxing.core.record import Fates, Record
from wuxing.core.step import Draft, StepKind
from wuxing.task.check import check_task
from wuxing.task.setting import TaskStep
from wuxing.task.task import SPLITS, Example


class TaskKind(StepKind[TaskStep]):
    """Writes the three splits, `task.json`, `fates.json` and `fates.parquet`."""

    kind = "task"
    Config = TaskStep
    required = ("splits_disjoint", "verifier_accepts_right", "verifier_rejects_wrong", "baseline", "counts")

    def inputs(self, config: TaskStep, context: Context) -> Mapping[str, str]:
        digests = {}
        for name, path in config.files().items():
            if not Path(path).is_file():
                raise WuxingError(f"There is no file {path}", f"It is the {name} of the task {config.task}")
            digests[name] = digest_of_file(Path(path))
        return digests

    def make(self, config: TaskStep, parents: Mapping[str, Artifact], draft: Draft, context: Context) -> None:
        from wuxing.core.splits import write_records

        splits = config.generate(draft.seed)
        fates = Fates()
        for split in SPLITS:
            context.stop.leave("nothing: a task is made again from its start")
            fates.total += len(splits[split])
            fates.count("kept", write_records(draft.path, split, _records(config, splits[split])))
        fates.judge(draft.evidence)
        check_task(config, splits, draft.evidence)
        settings = {key: value for key, value in config.model_dump(mode="json").items() if key not in ("make", "name")}
        write_json(draft.file("task.json"), settings)
        write_json(draft.file("fates.json"), fates.to_json())
        _write_fates(draft.file("fates.parquet"), splits)
        draft.summary.update({split: len(examples) for split, examples in splits.items()})
        draft.summary["baseline"] = draft.evidence.value("baseline")


def _records(config: TaskStep, examples: Iterable[Example]) -> Iterable[Record]:
    return (Record(e.id, config.task, messages=e.messages, meta=e.meta) for e in examples)


def _write_fates(path: Path, splits: dict[str, list[Example]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    ids = [example.id for split in SPLITS for example in splits[split]]
    columns = {"id": ids, "fate": ["kept"] * len(ids), "detail": [""] * len(ids)}
    schema = pa.schema([(name, pa.string()) for name in columns])
    pq.write_table(pa.table(columns, schema), path, compression="zstd")
