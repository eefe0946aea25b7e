"""Data sets of the Hugging Face hub, or of any server that speaks its protocol (`HF_ENDPOINT`).

A branch or tag is resolved to its commit, which the corpus card records; all files are read at that commit.  Where the
recipe names a commit, its listing stays in the cache, so that neither listing nor files need the network again.
The token comes from `HF_TOKEN` alone, and no code of a data set is ever run.
"""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from wuxing.core.context import Context
from wuxing.core.digest import digest_of, digest_of_file
from wuxing.core.error import WuxingError, nearest
from wuxing.core.file import read_json, write_json
from wuxing.source.config import SourceConfig
from wuxing.source.download import Passing, persistent
from wuxing.source.format import format_of, parts_of
from wuxing.source.remote_config import HubSource
from wuxing.source.row import Origin, short
from wuxing.source.secret import shown

ATTEMPTS = 3
"""The client itself waits for busy servers, and tries again."""
COMMIT = re.compile(r"[0-9a-f]{40}")
SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
"""Words in file names that stand for a split, as the hub's own loader takes them."""
NO_DATA = ("README.md", ".gitattributes", "LICENSE", "dataset_infos.json", "dataset_dict.json", "state.json")


@dataclass(frozen=True)
class HubBlob:
    """One file of a data set at one commit."""

    name: str
    dataset: str
    commit: str
    bytes: int
    object: str
    """The SHA-256 of a large file, the git object id of a small one."""
    large: bool
    cache: Path
    timeout_seconds: int

    def open(self) -> BinaryIO:
        """The content, downloaded unless it is in the cache."""
        return open(self.local(), "rb")

    def local(self) -> Path:
        """The file in the cache, with the length and digest that the server announced."""
        return persistent(self._fetched, f"{self.dataset}/{self.name}", attempts=ATTEMPTS)

    def _fetched(self) -> Path:
        place = _asked(lambda hub: self._file(hub), f"{self.dataset}: {self.name}")
        marker = self.cache / "checked" / digest_of([self.object, str(place)])[:32]
        if marker.is_file() and place.stat().st_size == self.bytes:
            return place
        right = place.stat().st_size == self.bytes
        if not right or (self.large and digest_of_file(place) != self.object):
            place.resolve().unlink()
            raise Passing(f"{self.name} came with other bytes than announced")
        marker.parent.mkdir(parents=True, exist_ok=True)
        marker.touch()
        return place

    def _file(self, hub: Any) -> Path:
        found = hub.hf_hub_download(
            self.dataset,
            self.name,
            repo_type="dataset",
            revision=self.commit,
            cache_dir=self.cache,
            token=_token(),
            endpoint=_endpoint(),
            etag_timeout=self.timeout_seconds,
            tqdm_class=_quiet(),
        )
        return Path(found)

    def digest(self) -> str:
        """What the hub itself identifies the content by."""
        return digest_of(["hub", self.object, self.bytes])

    def beside(self, path: str) -> HubBlob:
        """Another file of the same commit, for tables that name files."""
        entry = next((e for e in _kept_listing(self.cache, self.dataset, self.commit) or [] if e["path"] == path), None)
        if entry is None:
            raise FileNotFoundError(path)
        return _blob(entry, self.dataset, self.commit, self.cache, self.timeout_seconds)


def read(source: SourceConfig, context: Context) -> Origin:
    """The data files of a configuration and split, in the order of their paths."""
    asked, cache = _hub(source), context.cache_directory / "hub"
    commit, listing = _listing(asked, cache)
    chosen = _chosen(asked, listing, _card(asked, commit, listing, cache))
    blobs = [_blob(entry, asked.dataset, commit, cache, asked.timeout_seconds) for entry in chosen]
    card = {
        "hub": asked.dataset,
        "endpoint": shown(_endpoint()),
        "revision": asked.revision,
        "commit": commit,
        "config": asked.config,
        "split": asked.split,
        "files": {blob.name: blob.bytes for blob in blobs},
    }
    return Origin(parts_of(blobs, source), card)


def digest(source: SourceConfig, context: Context) -> str | None:
    """The commit; None when the recipe names it itself."""
    asked = _hub(source)
    return None if COMMIT.fullmatch(asked.revision) else _listing(asked, context.cache_directory / "hub")[0]


def _hub(source: SourceConfig) -> HubSource:
    assert source.hub is not None
    return source.hub


def _token() -> str | bool:
    return os.environ.get("HF_TOKEN") or False


def _endpoint() -> str:
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def _quiet() -> Any:
    """Downloads say nothing of themselves: several of them run at once in workers."""
    from functools import partial

    from tqdm.auto import tqdm

    return partial(tqdm, disable=True)


def _asked(question: Any, what: str) -> Any:
    """Ask the hub's client; what may pass is raised as Passing, what will not as one clear line."""
    import huggingface_hub as hub
    from huggingface_hub import errors

    try:
        return question(hub)
    except errors.GatedRepoError as error:
        raise WuxingError(f"{what} is gated", "Accept its terms on the hub, and set HF_TOKEN") from error
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.EntryNotFoundError) as error:
        if isinstance(error, errors.LocalEntryNotFoundError):
            raise Passing(f"{_endpoint()} cannot be reached: {_root(error)}") from error
        raise WuxingError(f"{what} is not at {shown(_endpoint())}", "Check name, revision and HF_TOKEN") from error
    except errors.OfflineModeIsEnabled as error:
        raise WuxingError(
            f"{what} is not in the cache, and HF_HUB_OFFLINE is set", "Run once with a network"
        ) from error
    except errors.HfHubHTTPError as error:
        code = error.response.status_code if error.response is not None else 0
        if code in (401, 403):
            raise WuxingError(f"{what} answers {code}", "Set HF_TOKEN to a token that may read it") from error
        raise Passing(f"the hub answers {code}") from error
    except OSError as error:
        raise Passing(shown(short(error))) from error
    except Exception as error:  # the client's HTTP library changed its name twice, and every name has its own errors
        if type(error).__module__.split(".")[0] not in ("httpx", "httpx2", "httpcore", "httpcore2", "requests"):
            raise
        raise Passing(shown(short(error))) from error


def _root(error: BaseException) -> str:
    cause = error.__cause__ or error.__context__ or error
    return shown(short(cause))


def _listing(asked: HubSource, cache: Path) -> tuple[str, list[dict[str, Any]]]:
    """The commit that the revision is, and its files; from the cache where the recipe names the commit."""
    if COMMIT.fullmatch(asked.revision) and (kept := _kept_listing(cache, asked.dataset, asked.revision)) is not None:
        return asked.revision, kept

    def look(hub: Any) -> tuple[str, list[dict[str, Any]]]:
        api = hub.HfApi(endpoint=_endpoint(), token=_token())
        commit = api.dataset_info(asked.dataset, revision=asked.revision, timeout=asked.timeout_seconds).sha
        found = api.list_repo_tree(asked.dataset, recursive=True, revision=commit, repo_type="dataset")
        return commit, [_entry(file) for file in found if hasattr(file, "size")]

    what = f"{asked.dataset} at {asked.revision}"
    commit, entries = persistent(
        lambda: _asked(look, what), f"{_endpoint()}/datasets/{asked.dataset}", attempts=ATTEMPTS
    )
    entries = sorted(entries, key=lambda entry: entry["path"])
    write_json(_listing_path(cache, asked.dataset, commit), entries)
    return commit, entries


def _entry(file: Any) -> dict[str, Any]:
    large = file.lfs is not None
    name = file.lfs.sha256 if large else file.blob_id
    return {"path": file.path, "bytes": file.lfs.size if large else file.size, "object": name, "large": large}


def _listing_path(cache: Path, dataset: str, commit: str) -> Path:
    return cache / "listings" / digest_of([_endpoint(), dataset])[:16] / f"{commit}.json"


def _kept_listing(cache: Path, dataset: str, commit: str) -> list[dict[str, Any]] | None:
    path = _listing_path(cache, dataset, commit)
    found: list[dict[str, Any]] | None = read_json(path) if path.is_file() else None
    return found


def _blob(entry: dict[str, Any], dataset: str, commit: str, cache: Path, seconds: int) -> HubBlob:
    return HubBlob(entry["path"], dataset, commit, entry["bytes"], entry["object"], entry["large"], cache, seconds)


def _card(asked: HubSource, commit: str, listing: list[dict[str, Any]], cache: Path) -> dict[str, Any]:
    """The YAML head of README.md, where a data set says which files are which split."""
    entry = next((entry for entry in listing if entry["path"] == "README.md"), None)
    if entry is None or asked.files:
        return {}
    text = _blob(entry, asked.dataset, commit, cache, asked.timeout_seconds).local().read_text(errors="replace")
    head = re.match(r"---\s*\n(.*?)\n---\s*(\n|$)", text, re.DOTALL)
    import yaml

    try:
        found = yaml.safe_load(head[1]) if head else {}
    except (yaml.YAMLError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _chosen(asked: HubSource, listing: Sequence[dict[str, Any]], card: dict[str, Any]) -> list[dict[str, Any]]:
    """The entries of the asked files.  WuxingError names what there is."""
    data = [e for e in listing if format_of(e["path"]) and e["path"].rsplit("/", 1)[-1] not in NO_DATA]
    data = [e for e in data if not any(piece.startswith(".") for piece in e["path"].split("/"))]
    if asked.files:
        found = [e for e in listing if fnmatch.fnmatchcase(e["path"], asked.files)]
        if not found:
            raise WuxingError(f"{asked.dataset} has no file {asked.files}", _some([e["path"] for e in listing]))
        return found
    splits = _splits_of(asked, data, card)
    if asked.split is None:
        return sorted({e["path"]: e for found in splits.values() for e in found}.values(), key=lambda e: str(e["path"]))
    if asked.split not in splits:
        raise WuxingError(f"{asked.dataset} has no split {asked.split}", nearest(asked.split, splits))
    return splits[asked.split]


def _splits_of(
    asked: HubSource, data: Sequence[dict[str, Any]], card: dict[str, Any]
) -> dict[str, list[dict[str, Any]]]:
    """Split → files: as the data set's card says, else by words in paths; tables in Parquet before all others."""
    configs = {str(c.get("config_name", "default")): c for c in card.get("configs") or [] if isinstance(c, dict)}
    if configs:
        first = next((name for name, c in configs.items() if c.get("default")), None) or next(iter(configs))
        name = asked.config or ("default" if "default" in configs else first)
        if name not in configs:
            raise WuxingError(f"{asked.dataset} has no configuration {name}", nearest(name, configs))
        if "data_files" in configs[name] or "data_dir" in configs[name]:
            return _stated(configs[name], data)
    elif asked.config and asked.config != "default":
        data = [e for e in data if e["path"].startswith(f"{asked.config}/") or f"/{asked.config}/" in e["path"]]
        if not data:
            raise WuxingError(f"{asked.dataset} has no configuration {asked.config}", "Name its files instead")
    tables = [e for e in data if format_of(e["path"]) == "parquet"] or data
    found: dict[str, list[dict[str, Any]]] = {}
    for entry in tables:
        found.setdefault(split_of_path(entry["path"]), []).append(entry)
    if not found:
        raise WuxingError(f"{asked.dataset} holds no file that is read", "Name its files by files")
    return found


def _stated(config: dict[str, Any], data: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The files of a configuration: one pattern, several, or several with their splits."""
    below = str(config.get("data_dir") or "").strip("/")
    files = config.get("data_files", "**")
    stated = files if isinstance(files, list) else [files]
    found: dict[str, list[dict[str, Any]]] = {}
    for one in stated:
        split = str(one.get("split", "train")) if isinstance(one, dict) else "train"
        patterns = one.get("path", []) if isinstance(one, dict) else one
        for pattern in patterns if isinstance(patterns, list) else [patterns]:
            whole = f"{below}/{pattern}" if below else str(pattern)
            found.setdefault(split, []).extend(e for e in data if fnmatch.fnmatchcase(e["path"], whole))
    return {split: sorted(entries, key=lambda e: str(e["path"])) for split, entries in found.items() if entries}


def split_of_path(path: str) -> str:
    """The split that the words of a path name, the last one first; `train` when none does."""
    words = re.split(r"[^A-Za-z0-9]+", path.lower())
    for word in reversed(words):
        for split, names in SPLIT_NAMES.items():
            if word in names:
                return split
    return "train"


def _some(names: Sequence[str]) -> str:
    return f"It holds {len(names)} files, such as {', '.join(names[:3])}"
