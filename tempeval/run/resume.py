"""Which earlier runs of a matrix stand: complete, and equal in every setting that matters."""

from __future__ import annotations

import importlib.metadata
from functools import cache
from typing import TYPE_CHECKING, Any

from tempeval.errors import TempevalError
from tempeval.host_files import is_whole
from tempeval.run.counting import differences, status_of
from tempeval.run.record import Request, RunRecord, read_record, write_record
from tempeval.source_digest import foreign_code
from tempeval.video.clip import FramePlan

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from tempeval.host import HostTasks
    from tempeval.methods.base import Chain
    from tempeval.run.counting import Allowed
    from tempeval.run.matrix import Plan

#: Settings that change no answer, so that a run with others may stand.
_FREE = ("batch_size",)


def reusable(plans: Sequence[Plan], replace: bool, allowed: Allowed) -> dict[Path, RunRecord]:
    """Return the records of equal earlier runs that are complete for this request, by folder.

    What a complete run may lack is asked now, whatever was asked then.

    Args:
        plans: what is to run.
        replace: run again what differs, instead of refusing.
        allowed: what a complete run may lack.

    Raises:
        TempevalError: if a folder holds a run of something else.
    """
    kept = {}
    for plan in plans:
        record = read_record(plan.folder)
        if not isinstance(record, RunRecord):
            continue  # there is none, or it has no scores
        if not any(task.answered for task in record.tasks.values()):
            continue  # a run that answered nothing blocks nothing
        complete = status_of(record.tasks, record.videos, allowed) == "complete"
        old, new = _settings(record.request), _settings(Request(**plan.request))
        if record.left_out:  # what it could not evaluate, it may evaluate now
            known, now = (request["annotations"] for request in (old, new))
            old["annotations"] = {key: known[key] for key in known.keys() & now.keys()}
            new["annotations"] = {key: now[key] for key in known.keys() & now.keys()}
        if not any(foreign_code(type(m).__module__) for m in plan.chain.parts):
            # The source of others' methods is part of it, and `outdated` tells of a changed one.
            old["method_fingerprint"] = record.method_fingerprint
            new["method_fingerprint"] = plan.chain.fingerprint
        if (
            complete or record.status == "complete"
        ):  # a run that did not end may not know these yet, and is replaced anyway
            old |= {"model_revision": record.model_revision, **record.packages}
            new |= {
                "model_revision": _revision(plan.request["pretrained"], plan.request["revision"])
            }
            new |= _versions(record.packages)
        changes = differences(old, new)
        if changes and not replace:
            raise TempevalError(
                f"{plan.folder} holds a run that differs ({'; '.join(changes)}); "
                "choose another -o, or pass --overwrite"
            )
        if complete and not changes and not _reads_features(plan.chain):
            kept[plan.folder] = record
    return kept


def outdated(plan: Plan, record: RunRecord, tasks: HostTasks) -> list[str]:
    """Say why an equal, complete run does not stand: what it was made of is another by now.

    Whatever of it is still the same comes from the journal when the run is made again.

    Args:
        plan: the run.
        record: its record.
        tasks: loaded.
    """
    reasons = [f"{what} changed" for what in _code_parts(record.code, plan.code)]
    for name in tasks.load():
        task = record.tasks.get(name)
        if task is None or task.video_stamps != tasks.video_digests(name)[0]:
            reasons.append(f"videos of {name} changed")
        if task is None or task.task_digest != tasks.task_digest(name):
            reasons.append(f"questions or scores of {name} are made otherwise")
    groups = tasks.group_digests()
    if record.groups != groups:
        reasons.append(f"scores of {', '.join(groups) or 'groups'} are made otherwise")
    named = [record.results_file, *(task.samples_file for task in record.tasks.values())]
    for name in dict.fromkeys([*named, *record.files]):
        facts = record.files.get(name)
        if facts is None or not is_whole(plan.folder / name, dict(facts)):
            reasons.append(f"{name or 'the results file'} is missing or damaged")
    return reasons


def _code_parts(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    """Name the parts of the code that differ."""
    names = sorted({*old, *new})
    return [f"code ({name})" for name in names if old.get(name) != new.get(name)]


def _reads_features(chain: Chain) -> bool:
    """Say whether answers depend on files that no task names, which may have been replaced since.

    Those are files of features, and other videos of a folder whose side channels a seed shuffles.
    Their stamps are in the keys of the journal: such a run is scored anew from there, and only what
    has changed is computed.
    """
    side = chain.frames(FramePlan()).side
    return any(
        (name == "folder" and value) or (name == "shuffle" and value is not None)
        for spec in side
        for name, value in spec.settings
    )


def keep(folder: Path, record: RunRecord) -> None:
    """Say in a run folder that its run is complete, if it says otherwise."""
    if record.status != "complete":
        write_record(folder, record.model_copy(update={"status": "complete", "error": None}))


def _settings(request: Request) -> dict[str, Any]:
    return {key: value for key, value in request.model_dump().items() if key not in _FREE}


def _versions(packages: Mapping[str, str]) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


@cache
def _revision(pretrained: str, revision: str | None) -> str:
    from tempeval.families.revision import local_folder, revision_of
    from tempeval.mini.paths import located

    return revision_of(local_folder(located(pretrained), revision))
